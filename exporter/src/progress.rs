//! How far long work has come, on standard error, for people only: where standard error is no terminal nothing is
//! written.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A progress bar that may be hidden.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    on_terminal: bool,
}

impl Progress {
    /// A bar on standard error, shown only where that is a terminal.
    #[must_use]
    pub fn on_terminal() -> Self {
        Self { bar: ProgressBar::hidden(), on_terminal: true }
    }

    /// A bar that is never shown.
    #[must_use]
    pub fn hidden() -> Self {
        Self { bar: ProgressBar::hidden(), on_terminal: false }
    }

    /// Work of unknown length begins.
    pub fn spin(&self, what: &'static str) {
        self.show("{spinner} {msg} ({elapsed})", what);
        self.bar.unset_length();
        self.bar.enable_steady_tick(Duration::from_millis(120));
    }

    /// `steps` steps of work begin.
    pub fn begin(&self, what: &'static str, steps: usize) {
        self.bar.disable_steady_tick();
        self.show("{msg} {bar:30} {pos}/{len} ({elapsed})", what);
        self.bar.set_length(steps as u64);
        self.bar.set_position(0);
    }

    /// One step is done.
    pub fn step(&self) {
        self.bar.inc(1);
    }

    /// The work is done; the bar disappears.
    pub fn end(&self) {
        self.bar.disable_steady_tick();
        self.bar.finish_and_clear();
    }

    fn show(&self, template: &str, what: &'static str) {
        self.bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        self.bar.set_message(what);
        self.bar.reset();
        if self.on_terminal {
            // Only now: a bar that can be seen is drawn at once, in whatever style it has.
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }
}

impl Drop for Progress {
    /// An error must not leave half a bar above its message.
    fn drop(&mut self) {
        self.end();
    }
}
