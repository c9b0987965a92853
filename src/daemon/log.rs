//! Logging: to stderr, and the last problems kept for `enotun status`.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// Problems remembered.
const PROBLEMS_MAX: usize = 20;
/// Characters of a problem remembered.
const PROBLEM_LENGTH_MAX: usize = 400;

/// The default log level.
pub const DEFAULT: &str = "info";

/// A warning or an error that was logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// When, RFC 3339 in UTC.
    pub at: String,
    /// `warn` or `error`.
    pub level: String,
    /// What was logged.
    pub message: String,
}

/// The running log.
#[derive(Clone)]
pub struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
    problems: Problems,
}

#[derive(Clone, Default)]
struct Problems(Arc<Mutex<VecDeque<Problem>>>);

/// The log setting of the environment, which overrides the configuration.
#[must_use]
pub fn from_environment() -> Option<String> {
    std::env::var("ENOTUN_LOG").ok().filter(|said| !said.is_empty())
}

/// Parses the log setting of the configuration.
///
/// # Errors
/// What is wrong with it.
pub fn parse(directives: &str) -> Result<EnvFilter, String> {
    let wrong = || format!("`{directives}` is not a log level; use error, warn, info, debug or trace");
    // A word that is not a level would name a module, and silence everything else.
    let is_level =
        |part: &str| part.contains('=') || !part.trim().is_empty() && part.trim().parse::<LevelFilter>().is_ok();
    if !directives.split(',').all(is_level) {
        return Err(wrong());
    }
    EnvFilter::try_new(directives).map_err(|_| wrong())
}

impl Log {
    /// Starts logging. Under systemd the journal has its own timestamps, so lines have none.
    ///
    /// # Errors
    /// If `directives` is invalid or a logger exists already.
    pub fn start(directives: &str) -> Result<Self, String> {
        let (filter, handle) = reload::Layer::new(parse(directives)?);
        let problems = Problems::default();
        let in_journal = std::env::var_os("JOURNAL_STREAM").is_some();
        let lines = fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(false);
        let lines = if in_journal { lines.without_time().boxed() } else { lines.boxed() };
        tracing_subscriber::registry()
            .with(filter)
            .with(lines)
            .with(problems.clone())
            .try_init()
            .map_err(|error| error.to_string())?;
        Ok(Self { filter: handle, problems })
    }

    /// Changes what is logged.
    ///
    /// # Errors
    /// If `directives` is invalid.
    pub fn change(&self, directives: &str) -> Result<(), String> {
        self.filter.reload(parse(directives)?).map_err(|error| error.to_string())
    }

    /// The last warnings and errors, oldest first.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        self.problems.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Problems {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        if level > Level::WARN {
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let problem = Problem {
            at: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            level: level.to_string().to_lowercase(),
            message: text.message.chars().take(PROBLEM_LENGTH_MAX).collect(),
        };
        let mut problems = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if problems.len() == PROBLEMS_MAX {
            problems.pop_front();
        }
        problems.push_back(problem);
    }
}

/// An event as one line: the message, then its fields.
#[derive(Default)]
struct Text {
    message: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a String cannot fail.
        let _ = if field.name() == "message" {
            let rest = std::mem::take(&mut self.message);
            write!(self.message, "{value:?}{rest}")
        } else {
            write!(self.message, " {}={value:?}", field.name())
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused() {
        for good in ["info", "WARN", "off", "warn,enotun=debug", "enotun::io=trace"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in ["", "inof", "info,debgu", "enotun", "enotun=debgu"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
