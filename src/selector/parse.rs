//! The grammar of facts 2.2, by recursive descent with one token of look-ahead.

use super::Error;
use super::node::{Node, Text};
use super::token::{Lexer, Op, Token};

/// What bounds a text: the deepest nesting of parentheses and the longest label name.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) depth: usize,
    pub(super) label: usize,
}

impl Limits {
    /// For text written by people.
    pub(super) const WRITTEN: Limits = Limits {
        depth: 64,
        label: 512,
    };
    /// For canonical text of ours, which rewriting may have wrapped and prefixed.
    pub(super) const REWRITTEN: Limits = Limits {
        depth: 96,
        label: 544,
    };
}

pub(super) fn parse(text: &str, limits: Limits) -> Result<Node, Error> {
    let mut lexer = Lexer::new(text, limits.label);
    let (token, offset) = lexer.next()?;
    let mut parser = Parser {
        lexer,
        token,
        offset,
        left: limits.depth,
    };
    if parser.token == Token::End {
        return Ok(Node::All);
    }
    let node = parser.or()?;
    parser.expect(Token::End, "unexpected content at end of selector")?;
    Ok(node)
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    token: Token<'a>,
    offset: usize,
    /// How many more parentheses may be opened inside each other.
    left: usize,
}

impl<'a> Parser<'a> {
    /// Takes the current token and reads the one behind it.
    fn bump(&mut self) -> Result<Token<'a>, Error> {
        let taken = self.token;
        if taken != Token::End {
            (self.token, self.offset) = self.lexer.next()?;
        }
        Ok(taken)
    }

    fn take(&mut self, token: Token<'_>) -> Result<bool, Error> {
        let found = self.token == token;
        if found {
            self.bump()?;
        }
        Ok(found)
    }

    fn expect(&mut self, token: Token<'_>, message: &str) -> Result<(), Error> {
        if self.take(token)? {
            Ok(())
        } else {
            self.fail(message)
        }
    }

    fn fail<T>(&self, message: impl Into<String>) -> Result<T, Error> {
        Err(Error::new(self.offset, message))
    }

    fn or(&mut self) -> Result<Node, Error> {
        self.list(Token::Or, Node::Or, Parser::and)
    }

    fn and(&mut self) -> Result<Node, Error> {
        self.list(Token::And, Node::And, Parser::unary)
    }

    fn list(
        &mut self,
        separator: Token<'_>,
        join: fn(Vec<Node>) -> Node,
        operand: fn(&mut Self) -> Result<Node, Error>,
    ) -> Result<Node, Error> {
        let first = operand(self)?;
        if self.token != separator {
            return Ok(first);
        }
        let mut nodes = vec![first];
        while self.take(separator)? {
            nodes.push(operand(self)?);
        }
        Ok(join(nodes))
    }

    fn unary(&mut self) -> Result<Node, Error> {
        let mut negated = false;
        while self.take(Token::Not)? {
            negated = !negated;
        }
        let node = self.primary()?;
        Ok(if negated { node.negate() } else { node })
    }

    fn primary(&mut self) -> Result<Node, Error> {
        match self.token {
            Token::Has => {
                self.bump()?;
                let Token::Label(label) = self.token else {
                    return self.fail("expected label");
                };
                self.bump()?;
                self.closed(Node::Has(label.into()))
            }
            Token::All => {
                self.bump()?;
                self.closed(Node::All)
            }
            Token::Global => {
                self.bump()?;
                self.closed(Node::Global)
            }
            Token::Label(label) => {
                self.bump()?;
                self.comparison(label)
            }
            Token::Open => self.group(),
            Token::End => self.fail("unexpected end of string looking for an expression"),
            _ => self.fail("expected a label, has(..), all(), global(), `!` or `(`"),
        }
    }

    fn closed(&mut self, node: Node) -> Result<Node, Error> {
        self.expect(Token::Close, "expected )")?;
        Ok(node)
    }

    fn group(&mut self) -> Result<Node, Error> {
        let Some(left) = self.left.checked_sub(1) else {
            return self.fail("parentheses are nested too deeply");
        };
        self.left = left;
        self.bump()?;
        let node = self.or()?;
        self.left += 1;
        self.closed(node)
    }

    fn comparison(&mut self, label: &str) -> Result<Node, Error> {
        let op = match self.token {
            Token::Op(op) => op,
            Token::End => return self.fail("unexpected end of string looking for op"),
            _ => return self.fail(format!("expected operator after label \"{label}\"")),
        };
        self.bump()?;
        match op {
            Op::In | Op::NotIn => Ok(Node::set(label, op == Op::In, self.set()?)),
            _ => Ok(Node::Compare(label.into(), op, self.string()?)),
        }
    }

    fn string(&mut self) -> Result<Text, Error> {
        let Token::Str(value) = self.token else {
            return self.fail("expected string");
        };
        self.bump()?;
        Ok(value.into())
    }

    fn set(&mut self) -> Result<Vec<Text>, Error> {
        self.expect(Token::BraceOpen, "expected set literal")?;
        let mut values = Vec::new();
        while let Token::Str(value) = self.token {
            values.push(value.into());
            self.bump()?;
            if !self.take(Token::Comma)? {
                break;
            }
        }
        self.expect(Token::BraceClose, "expected }")?;
        Ok(values)
    }
}
