//! `isqrt-cov completions`.

use anyhow::Result;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::{Answer, Cli};

/// Print the completion script of a shell
///
/// The script completes commands, options and file names.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mkdir -p ~/.local/share/bash-completion/completions
  isqrt-cov completions bash > ~/.local/share/bash-completion/completions/isqrt-cov
  isqrt-cov completions zsh > \"${fpath[1]}/_isqrt-cov\"
  isqrt-cov completions fish > ~/.config/fish/completions/isqrt-cov.fish")]
pub struct Arguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Answer> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "isqrt-cov", &mut script);
    let mut text = String::from_utf8(script)?;
    if arguments.shell == Shell::Bash {
        // The generator takes the hyphen in the program's name for a space in half of the places.
        text = text.replace("isqrt__subcmd__cov", "isqrt__cov");
    }
    let mut answer = Answer::default();
    answer.fields.insert("script".to_owned(), text.clone().into());
    answer.text = text;
    Ok(answer)
}
