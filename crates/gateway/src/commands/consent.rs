//! The confirmation before an irreversible action.

use std::io::{self, IsTerminal, Write};

use clap::Args;

use crate::failure::{Failure, USAGE};

/// Whether the arguments already give the confirmation.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Consent {
    /// Do not ask for confirmation; scripts need this option
    #[arg(long)]
    yes: bool,
}

impl Consent {
    /// Succeeds if `--yes` was given or the user answers `yes`. `what` is a sentence that names the loss. Without a
    /// terminal, as in a script, the function refuses and does not ask.
    pub(crate) fn to(self, what: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            return Err(Failure::new(
                USAGE,
                format!(
                    "{what}: the command has changed nothing; add --yes to run the command without a question"
                ),
            ));
        }
        match ask(what) {
            Ok(answer) if answer.trim().eq_ignore_ascii_case("yes") => Ok(()),
            Ok(_) => Err(Failure::new(
                "canceled",
                "the command has changed nothing: run the command again and answer `yes`, or add --yes",
            )),
            Err(error) => Err(Failure::new(
                USAGE,
                format!(
                    "{what}: the answer cannot be read ({error}); add --yes to run the command without a question"
                ),
            )),
        }
    }
}

fn ask(what: &str) -> io::Result<String> {
    let mut terminal = io::stderr().lock();
    terminal.write_all(format!("{what}. Type `yes` to continue: ").as_bytes())?;
    terminal.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(answer)
}
