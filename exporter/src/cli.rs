//! The command line: what can be asked, and how the answer leaves.

use std::ffi::OsString;
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, anyhow, bail};
use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};
use isqrt_cov_proto::Printable;
use serde_json::{Value, json};

use crate::commands;
use crate::commands::answer::{Answer, Refusal};
use crate::table::one_line;

/// Finds iSQRT-COV layers in trained graphs, replaces each by a single operator, and proves that the model still
/// computes the same function. Makes such models of checkpoints, too.
#[derive(Debug, Parser)]
#[command(name = "isqrt-cov", version, arg_required_else_help = true, after_help = EXIT_STATUS, after_long_help = MAIN_EXAMPLES)]
pub(crate) struct Cli {
    /// Print one JSON object on standard output, and nothing else there
    #[arg(long, global = true, help_heading = "Output")]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Convert(commands::convert::Arguments),
    Inspect(commands::inspect::Arguments),
    Validate(commands::validate::Arguments),
    Expand(commands::expand::Arguments),
    Bench(commands::bench::Arguments),
    Doctor(commands::doctor::Arguments),
    Operators(commands::operators::Arguments),
    Completions(commands::completions::Arguments),
}

const EXIT_STATUS: &str = "Exit status: 0 done and proven, 1 the answer is no, 2 an error.";

const MAIN_EXAMPLES: &str = "\
Examples:
  isqrt-cov inspect model.onnx                      What is in it?
  isqrt-cov convert model.onnx -o fused.onnx        One node for each layer, proven
  isqrt-cov convert model.pth.tar -o model.onnx     A checkpoint: its network, built and proven
  isqrt-cov validate model.onnx fused.onnx          Do they compute the same function?
  isqrt-cov expand fused.onnx -o plain.onnx         Back to standard operators
  isqrt-cov bench model.onnx fused.onnx             How much faster?
  isqrt-cov doctor                                  Which runtime and which operator library are there?

Exit status:
  0  done and proven
  1  the answer is no: nothing to convert, a proof failed, a graph that lost its iteration; no output file is written
  2  an error: input that cannot be read, bad usage, an answer that cannot be printed";

/// How a command ended, as the shell sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// Done and proven.
    Done = 0,
    /// The answer is no.
    No = 1,
    /// An error.
    Error = 2,
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status as u8)
    }
}

/// Runs the command line `arguments` and writes the answer.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitStatus {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    match Cli::try_parse_from(&arguments) {
        Ok(cli) => {
            isqrt_cov_proto::on_lost(if cli.json {
                |path| lost(path, true)
            } else {
                |path| lost(path, false)
            });
            let outcome = guarded(|| answer(&cli.command));
            deliver(outcome, cli.json)
        }
        Err(mut error) => {
            suggest_output(&mut error, &arguments);
            reject(&error, arguments.iter().any(|argument| argument == "--json"))
        }
    }
}

/// What the command line `arguments` comes to, as [`run`] would print it with `--json`. Nothing is printed, and a panic
/// is not made an error: for those who look for panics.
///
/// # Errors
/// What the command fails with, and bad usage.
pub fn attempt(arguments: impl IntoIterator<Item = OsString>) -> Result<Value> {
    let cli = Cli::try_parse_from(arguments)?;
    Ok(answer(&cli.command)?.to_json())
}

fn answer(command: &Command) -> Result<Answer> {
    match command {
        Command::Convert(arguments) => commands::convert::run(arguments),
        Command::Inspect(arguments) => commands::inspect::run(arguments),
        Command::Validate(arguments) => commands::validate::run(arguments),
        Command::Expand(arguments) => commands::expand::run(arguments),
        Command::Bench(arguments) => commands::bench::run(arguments),
        Command::Doctor(arguments) => commands::doctor::run(arguments),
        Command::Operators(_) => Ok(commands::operators::run()),
        Command::Completions(arguments) => commands::completions::run(arguments, &mut Cli::command()),
    }
}

/// Does the work; a panic (a defect here, or in a runtime on a model that it did not foresee) becomes an error.
fn guarded(work: impl FnOnce() -> Result<Answer>) -> Result<Answer> {
    static LAST: Mutex<Option<String>> = Mutex::new(None);
    let previous = panic::take_hook();
    panic::set_hook(Box::new(|info| {
        *LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some(info.to_string().replace('\n', " "));
    }));
    let outcome = panic::catch_unwind(AssertUnwindSafe(work));
    panic::set_hook(previous);
    outcome.unwrap_or_else(|_| {
        let place = LAST.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
        bail!("internal error; please report it with the model: {place}")
    })
}

/// Writes a command's answer or error.
fn deliver(outcome: Result<Answer>, json: bool) -> ExitStatus {
    let written = outcome.as_ref().map(written).unwrap_or_default();
    let (status, text, complaint) = match outcome {
        Ok(answer) => {
            let status = if answer.refusal.is_none() { ExitStatus::Done } else { ExitStatus::No };
            if json {
                (status, answer.to_json().to_string(), None)
            } else {
                let no =
                    |refusal: Refusal| format!("no ({}): {}", refusal.reason, one_line(&refusal.message));
                (status, answer.text.trim_end().to_owned(), answer.refusal.map(no))
            }
        }
        Err(error) => {
            let causes = causes(&error);
            if json {
                let object = json!({ "status": "error", "reason": "error", "message": causes.join(": ") });
                (ExitStatus::Error, object.to_string(), None)
            } else {
                let complaint = format!("error: {}", causes.join("\n  cause: "));
                (ExitStatus::Error, String::new(), Some(complaint))
            }
        }
    };
    let printed = print(&text, json);
    complaint.into_iter().for_each(|complaint| complain(&complaint));
    printed.map_or_else(|error| unprinted(&error, &written), |()| status)
}

/// The files that a command wrote, as the end of a sentence.
fn written(answer: &Answer) -> String {
    let fields =
        ["output", "output_data", "report"].into_iter().filter_map(|name| answer.fields[name].as_str());
    let written: Vec<String> = fields.map(one_line).collect();
    if written.is_empty() {
        String::new()
    } else {
        format!(", though this was written: {}", written.join(", "))
    }
}

/// Says that standard output took no answer.
fn unprinted(error: &io::Error, written: &str) -> ExitStatus {
    complain(&format!("error: the answer cannot be written to standard output{written}\n  cause: {error}"));
    ExitStatus::Error
}

/// Says that a file could not be read to its end, and with which status this ends.
fn lost(path: &Path, json: bool) -> i32 {
    let error = anyhow!("{}: became shorter while it was read, or its disk failed", path.display());
    deliver(Err(error), json) as i32
}

/// Says of a second path given to a command that writes a model how its output is named.
fn suggest_output(error: &mut clap::Error, arguments: &[OsString]) {
    let named = |argument: &&OsString| !argument.to_string_lossy().starts_with('-');
    let command = arguments.iter().skip(1).find(named);
    if command.is_some_and(|command| command == "convert" || command == "expand")
        && error.kind() == ErrorKind::UnknownArgument
        && let Some(ContextValue::String(path)) = error.get(ContextKind::InvalidArg)
        && !path.starts_with('-')
    {
        let tip = StyledStr::from(format!("the output is named by an option: -o {}", one_line(path)));
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
    }
}

/// Answers a command line that asks for help, or that cannot be understood.
fn reject(error: &clap::Error, json: bool) -> ExitStatus {
    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if json && !asked {
        let message = error.render().to_string();
        let message = message.trim().trim_start_matches("error: ");
        // The exit status says the same, wherever the text goes.
        let _ = print(&json!({ "status": "error", "reason": "usage", "message": message }).to_string(), json);
    } else if asked {
        let printed = error.print().and_then(|()| io::stdout().flush());
        return unless_gone(printed).map_or_else(|error| unprinted(&error, ""), |()| ExitStatus::Done);
    } else {
        // Nothing can be done where the terminal is gone.
        let _ = error.print();
    }
    ExitStatus::Error
}

/// The headline and its causes, without those that the line above already tells.
fn causes(error: &anyhow::Error) -> Vec<String> {
    let mut causes: Vec<String> = Vec::new();
    for cause in error.chain() {
        // Only what stands between two of them is a new line.
        let cause = one_line(cause.to_string().trim_end());
        if causes.last().is_none_or(|last| !last.contains(&cause)) {
            causes.push(cause);
        }
    }
    causes
}

/// Text in which names from files may stand: what would control the terminal is written out, in JSON as JSON does it. The
/// lines are the program's own: names had theirs written out where they entered ([`one_line`]).
fn tame(text: &str, json: bool) -> String {
    let mut tamed = String::with_capacity(text.len());
    for character in text.chars() {
        if !matches!(character, '\n' | '\t') && Printable::is_refused(character) {
            if json {
                // All of them have four digits.
                tamed.extend(format!("\\u{:04x}", u32::from(character)).chars());
            } else {
                tamed.extend(character.escape_unicode());
            }
        } else {
            tamed.push(character);
        }
    }
    tamed
}

/// Writes a line to standard output, unless it is empty.
fn print(text: &str, json: bool) -> io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    let mut stream = io::stdout().lock();
    unless_gone(writeln!(stream, "{}", tame(text, json)).and_then(|()| stream.flush()))
}

/// What came of writing to standard output. Where the reader has gone there is no one left to tell.
fn unless_gone(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", tame(text, false));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_panic_becomes_one_line() {
        let error = guarded(|| panic!("a tensor\nof rank 7")).unwrap_err().to_string();
        assert!(
            error.starts_with("internal error; please report it") && error.ends_with("a tensor of rank 7"),
            "{error}"
        );
    }

    #[test]
    fn causes_are_told_once() {
        let cause = || anyhow::anyhow!("no such file");
        let error = cause().context("x.onnx: cannot be read: no such file").context("nothing was converted");
        assert_eq!(causes(&error), ["nothing was converted", "x.onnx: cannot be read: no such file"]);
        assert_eq!(causes(&anyhow::anyhow!("of\ntwo lines\n")), ["of\\ntwo lines"]);
        assert_eq!(tame("a\tb\x1b[2J\nc", false), "a\tb\\u{1b}[2J\nc");
    }

    #[test]
    fn names_that_control_the_terminal_are_still_json() {
        let names = "a\x1b\u{7f}\u{85}\u{200d}\u{202e}\u{2028}\u{feff}é";
        let tamed = tame(&json!({ "name": names }).to_string(), true);
        assert!(tamed.chars().all(|character| !Printable::is_refused(character)), "{tamed}");
        assert_eq!(serde_json::from_str::<Value>(&tamed).unwrap()["name"], names);
    }
}
