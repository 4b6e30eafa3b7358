//! What is wrong with a configuration: all of it at once, each mistake with its place, its key and what was expected.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

/// Everything that is wrong with one configuration, in the order of its lines. Never empty.
#[derive(Debug)]
pub struct Mistakes {
    name: String,
    list: Vec<Mistake>,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
    /// The whole key, such as `upstreams.NAME.url`; empty where the text is no TOML.
    pub key: String,
    /// What was wrong, what was expected, and the nearest word if one is near.
    pub message: String,
    /// The line up to the end of what is wrong, and how many characters of it are wrong. Left out where it could show a
    /// secret.
    excerpt: Option<(String, usize)>,
}

impl Mistakes {
    /// For what should have been told and was not.
    pub(super) fn unexplained(name: &str) -> Self {
        let message = "cannot be read".to_owned();
        Self {
            name: name.into(),
            list: vec![Mistake { line: 1, column: 1, key: String::new(), message, excerpt: None }],
        }
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Mistake> {
        self.list.iter()
    }
}

impl std::error::Error for Mistakes {}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, mistake) in self.list.iter().enumerate() {
            if place > 0 {
                writeln!(f)?;
            }
            write!(f, "{}:{}:{}: ", self.name, mistake.line, mistake.column)?;
            if !mistake.key.is_empty() {
                write!(f, "{}: ", mistake.key)?;
            }
            write!(f, "{}", mistake.message)?;
            if let Some((line, width)) = &mistake.excerpt {
                let number = mistake.line.to_string();
                let margin = " ".repeat(number.len());
                let (before, marks) = (" ".repeat(mistake.column - 1), "^".repeat(*width));
                write!(f, "\n {number} | {line}\n {margin} | {before}{marks}")?;
            }
        }
        Ok(())
    }
}

/// A complaint that does not know its place yet.
#[derive(Debug)]
pub(super) enum Wrong {
    /// To be told by whoever knows the place.
    Here(Complaint),
    /// Told already, at a place further in.
    Told,
}

/// What a complaint says.
#[derive(Debug)]
pub(super) struct Complaint {
    what: String,
    expected: String,
    near: Option<String>,
    secret: bool,
}

impl Wrong {
    /// `what` was found where `expected` should be; `expected` may be empty where `what` says it all.
    pub(super) fn new(what: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Here(Complaint { what: what.into(), expected: expected.into(), near: None, secret: false })
    }

    /// With the word that was probably meant.
    pub(super) fn near(mut self, near: Option<&str>) -> Self {
        if let Self::Here(complaint) = &mut self {
            complaint.near = near.map(Into::into);
        }
        self
    }

    /// The line must not be shown.
    pub(super) fn secret(mut self) -> Self {
        if let Self::Here(complaint) = &mut self {
            complaint.secret = true;
        }
        self
    }
}

/// The text being read, with what was noticed so far.
#[derive(Debug)]
pub(super) struct Notes<'t> {
    text: &'t str,
    mistakes: RefCell<Vec<(usize, Mistake)>>,
    warnings: RefCell<Vec<String>>,
}

impl<'t> Notes<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, mistakes: RefCell::default(), warnings: RefCell::default() }
    }

    /// Notes that what stands at `at`, the value of `key`, is wrong.
    pub(super) fn tell(&self, at: &Range<usize>, key: &str, wrong: Wrong) {
        let Wrong::Here(complaint) = wrong else { return };
        let mut message = complaint.what;
        if !complaint.expected.is_empty() {
            message.push_str("; expected ");
            message.push_str(&complaint.expected);
        }
        if let Some(near) = complaint.near {
            message.push_str(&format!(" (did you mean `{near}`?)"));
        }
        let (line, column) = self.place(at.start);
        // A text that is no TOML does not tell what is a secret and what is not.
        let excerpt = if complaint.secret || key.is_empty() { None } else { self.excerpt(at) };
        let mistake = Mistake { line, column, key: key.into(), message, excerpt };
        self.mistakes.borrow_mut().push((at.start, mistake));
    }

    /// Notes what the operator should know although nothing is wrong.
    pub(super) fn warn(&self, warning: impl Into<String>) {
        self.warnings.borrow_mut().push(warning.into());
    }

    /// The warnings, or the mistakes if there are any.
    pub(super) fn close(self, name: &str) -> Result<Vec<String>, Mistakes> {
        let mut mistakes = self.mistakes.into_inner();
        if mistakes.is_empty() {
            return Ok(self.warnings.into_inner());
        }
        mistakes.sort_by_key(|(at, _)| *at);
        let list = mistakes.into_iter().map(|(_, mistake)| mistake).collect();
        Err(Mistakes { name: name.into(), list })
    }

    /// Line and column of a byte, both counted from 1.
    fn place(&self, at: usize) -> (usize, usize) {
        let before = self.upto(at);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        (line, column)
    }

    /// The line of `at`, up to the end of what is marked. A quoted string before it may be a secret, and so may one inside
    /// a marked table: the line is not shown, or not further than to that.
    fn excerpt(&self, at: &Range<usize>) -> Option<(String, usize)> {
        // What is missing altogether stands on no line.
        if at.is_empty() {
            return None;
        }
        let before = self.upto(at.start);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = self.text.get(start..at.end)?.split('\n').next()?.trim_end_matches('\r');
        let (head, marked) = line.split_at_checked(at.start - start)?;
        let is_string = marked.starts_with(['"', '\'']);
        let marked = if is_string { marked } else { marked.split(['"', '\'']).next()?.trim_end() };
        let line = &line[..head.len() + marked.len()];
        if head.contains(['"', '\'']) || line.chars().any(char::is_control) || line.len() > 400 {
            return None;
        }
        Some((line.into(), marked.chars().count().max(1)))
    }

    /// The text before a byte, whole characters only.
    fn upto(&self, at: usize) -> &'t str {
        let mut at = at.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        &self.text[..at]
    }
}

/// The word among `words` that `written` was probably meant to be.
pub(super) fn nearest<'w>(written: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let plain = |word: &str| word.to_lowercase().replace(['-', '_', ' '], "");
    let written = plain(written.get(..100).unwrap_or(written));
    let likeness = |word: &str| {
        let word = plain(word);
        let slip = word.len() > 2 && strsim::osa_distance(&word, &written) == 1;
        strsim::jaro_winkler(&word, &written).max(if slip { 0.85 } else { 0.0 })
    };
    let ranked =
        words.into_iter().map(|word| (likeness(word), word)).filter(|(likeness, _)| *likeness >= 0.8);
    ranked.reduce(|best, next| if next.0 > best.0 { next } else { best }).map(|(_, word)| word)
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn shown(text: &str, marked: &str, key: &str) -> String {
        let notes = Notes::new(text);
        let at = text.find(marked).expect("is in the text");
        notes.tell(&(at..at + marked.len()), key, Wrong::new("is odd", "even").near(Some("two")));
        notes.close("c.toml").expect_err("has a mistake").to_string()
    }

    #[test]
    fn a_mistake_shows_its_place_and_its_line() {
        let said = shown("[é]\né = 5 # x", "5", "é");
        assert_eq!(
            said,
            "c.toml:2:5: é: is odd; expected even (did you mean `two`?)\n 2 | é = 5\n   |     ^"
        );
    }

    #[test]
    fn strings_beside_the_mistake_are_not_shown() {
        assert!(!shown("k = { key = \"hunter2\", b = 5 }", "5", "k.b").contains("hunter2"));
        assert!(!shown("k = 5, \"hunter2\"", "5", "k").contains("hunter2"));
        assert!(!shown("k 5 \"hunter2\"", "5", "").contains("hunter2"));
        assert!(!shown("k = hunter2 5", "5", "").contains("hunter2"));
        assert!(!shown("a = \"\"\"\nhunter2 5", "5", "").contains("hunter2"));
    }

    #[test]
    fn the_nearest_word() {
        let words = ["listen", "rate_limit", "idle_timeout"];
        for (written, near) in [
            ("lisen", Some("listen")),
            ("rate-limit", Some("rate_limit")),
            ("IdleTimeout", Some("idle_timeout")),
            ("zzz", None),
        ] {
            assert_eq!(nearest(written, words), near, "{written}");
        }
    }
}
