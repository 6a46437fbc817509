//! Protection of the process: permissions of new files, core dumps, hidden input of secrets.

use std::io::{self, IsTerminal, Write};

use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    stat::{Mode, umask},
    termios::{LocalFlags, SetArg, tcgetattr, tcsetattr},
};

/// Makes new files readable for their owner alone. Without `core_dumps` a crash writes no memory into a file, and other
/// processes of the same user cannot read the memory.
pub(crate) fn keep(core_dumps: bool) -> io::Result<()> {
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
    if core_dumps {
        return Ok(());
    }
    let (_, most) = getrlimit(Resource::RLIMIT_CORE)?;
    setrlimit(Resource::RLIMIT_CORE, 0, most)?;
    // The resource limit does not cover a dump that the system pipes to a program.
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_dumpable(false)?;
    Ok(())
}

/// Reads the next line of standard input. At a terminal, prints `ask` first and hides the typed characters.
pub(crate) fn secret_line(ask: &str) -> io::Result<String> {
    let stdin = io::stdin();
    let mut line = String::new();
    if !stdin.is_terminal() {
        stdin.read_line(&mut line)?;
        return Ok(line);
    }
    let before = tcgetattr(&stdin)?;
    let mut hidden = before.clone();
    hidden.local_flags.remove(LocalFlags::ECHO);
    hidden.local_flags.insert(LocalFlags::ECHONL);
    tcsetattr(&stdin, SetArg::TCSANOW, &hidden)?;
    let mut terminal = io::stderr().lock();
    let read = terminal
        .write_all(ask.as_bytes())
        .and_then(|()| terminal.flush())
        .and_then(|()| stdin.read_line(&mut line));
    tcsetattr(&stdin, SetArg::TCSANOW, &before)?;
    read.map(|_| line)
}
