//! moatctl, the tool at the keyboard.

fn main() -> std::process::ExitCode {
    moat::ctl::main()
}
