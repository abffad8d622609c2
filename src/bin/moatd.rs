//! moatd, the daemon.

fn main() -> std::process::ExitCode {
    moat::daemon::main()
}
