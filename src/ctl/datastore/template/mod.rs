//! Templates in the language of Go's `text/template`, as far as those for calicoctl use it: fields, variables, `if`, `range`, `with`,
//! pipelines and the usual functions. Fields have the names of Calico's Go types (`.ObjectMeta.Name`) or those of documents.

mod evaluate;
mod parse;

use serde_json::Value;

use crate::ctl::{EX_NO, Failure, output};

/// A part of a template.
#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    /// Shown.
    Pipe(Pipe),
    /// A variable gets a value.
    Let(String, Pipe),
    If(Pipe, Vec<Part>, Vec<Part>),
    /// With names for the index and the value, if they are given.
    Range(Vec<String>, Pipe, Vec<Part>, Vec<Part>),
    With(Pipe, Vec<Part>, Vec<Part>),
}

/// Calls, each of which gets the result of the one before as its last argument.
type Pipe = Vec<Vec<Word>>;

/// An argument, or the function that a call begins with.
#[derive(Clone, Debug, PartialEq)]
enum Word {
    Literal(Value),
    /// A name without a dot: a function.
    Name(String),
    /// Fields of the current value.
    Fields(Vec<String>),
    /// Fields of a variable.
    Variable(String, Vec<String>),
    /// A pipeline in brackets, and fields of its result.
    Inner(Pipe, Vec<String>),
}

/// Prints what the template makes of these answers.
pub fn print(template: &str, found: &[Value]) -> Result<(), Failure> {
    let wrong = |what: String| Failure::new(EX_NO, format!("template: {what}"));
    let parts = parse::parse(template).map_err(wrong)?;
    let text = evaluate::text(&parts, &found.to_vec().into()).map_err(wrong)?;
    output::print_raw(&text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn made(template: &str) -> Result<String, String> {
        let found = json!([{"kind": "HostEndpointList", "items": [
            {"kind": "HostEndpoint", "metadata": {"name": "a", "labels": {"x": "1", "w": "2"}}, "spec": {"node": "h1", "expectedIPs": ["10.0.0.1", "fd00::1"], "order": 5}},
            {"kind": "HostEndpoint", "metadata": {"name": "b"}, "spec": {"node": "h2"}},
        ]}]);
        evaluate::text(&parse::parse(template)?, &found)
    }

    #[test]
    fn what_templates_make() {
        for (template, text) in [
            (
                "{{range .}}{{range .Items}}{{.ObjectMeta.Name}} {{end}}{{end}}",
                "a b ",
            ),
            (
                "{{range .}}{{range .items}}{{.Name}}={{join .Spec.ExpectedIPs \",\"}};{{end}}{{end}}",
                "a=10.0.0.1,fd00::1;b=;",
            ),
            (
                "{{range .}}{{len .Items}} {{.Kind}}{{end}}",
                "2 HostEndpointList",
            ),
            (
                "{{range .}}{{range $i, $e := .Items}}{{if $i}}, {{end}}{{$e.Spec.Node}}{{end}}{{end}}",
                "h1, h2",
            ),
            (
                "{{with index . 0}}{{with index .Items 0}}{{.Spec.ExpectedIPs}} {{.Labels}}{{end}}{{end}}",
                "[10.0.0.1 fd00::1] map[w:2 x:1]",
            ),
            (
                "{{range .}}{{range .Items}}{{if eq .Spec.Node \"h1\"}}one{{else if eq .Spec.Node `h2`}}two{{else}}none{{end}} {{end}}{{end}}",
                "one two ",
            ),
            (
                "{{range .}}{{range .Items}}{{if and .Spec.Order (not (eq .Name \"b\"))}}{{.Name | printf \"%s-%v\" \"x\"}}{{end}}{{end}}{{end}}",
                "x-a",
            ),
            ("a {{- /* nothing */ -}} b{{$n := \"c\"}}{{$n}}", "abc"),
            ("{{range .None}}x{{else}}none{{end}}", "none"),
            (
                "{{range .}}{{range .Items}}{{joinAndTruncate .Spec.ExpectedIPs \",\" 10}}{{end}}{{end}}",
                "10.0.0....",
            ),
        ] {
            assert_eq!(made(template).as_deref(), Ok(text), "{template}");
        }
        for template in [
            "{{",
            "{{if .}}",
            "{{end}}",
            "{{range .}}{{else}}",
            "{{fly .}}",
            "{{$none}}",
            "{{\"a}}",
            "{{(len .}}",
        ] {
            assert!(made(template).is_err(), "{template}");
        }
    }
}
