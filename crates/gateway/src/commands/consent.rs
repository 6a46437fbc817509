//! The question before what cannot be taken back.

use std::io::{self, IsTerminal, Write};

use clap::Args;

use crate::failure::{Failure, USAGE};

/// Whether the question is answered already.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Consent {
    /// Do it without a question: what a script must say
    #[arg(long)]
    yes: bool,
}

impl Consent {
    /// Goes on where `yes` was said; `what` is a sentence that names what is lost. A script is refused and not asked.
    pub(crate) fn to(self, what: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            return Err(Failure::new(
                USAGE,
                format!("{what}: nothing was done; add --yes to do it without a question"),
            ));
        }
        match ask(what) {
            Ok(answer) if answer.trim().eq_ignore_ascii_case("yes") => Ok(()),
            Ok(_) => Err(Failure::new(
                "canceled",
                "nothing was done: run the command again and answer `yes`, or add --yes",
            )),
            Err(error) => Err(Failure::new(
                USAGE,
                format!(
                    "{what}: the answer cannot be read ({error}); add --yes to do it without a question"
                ),
            )),
        }
    }
}

fn ask(what: &str) -> io::Result<String> {
    let mut terminal = io::stderr().lock();
    terminal.write_all(format!("{what}. Type `yes` to go on: ").as_bytes())?;
    terminal.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(answer)
}
