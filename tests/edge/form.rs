//! How a case is written: one keyword a line, read into what is to be done and what is to be seen.

use std::time::Duration;

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    /// The section that decides it, such as `9112 §3.2`.
    pub rfc: String,
    /// How often it is played.
    pub repeat: usize,
    /// Why it fails for now.
    pub known: Option<String>,
    /// Lines for the gate's configuration, by section: `server`, `upstream`, or `config`: at its end.
    pub settings: Vec<(String, String)>,
    /// What the client does and must see, in order.
    pub steps: Vec<Step>,
    /// What the upstream does with each request, in order; afterwards it answers 200 `ok`.
    pub origin: Vec<Vec<Act>>,
    /// What the upstream must have seen when the client is done.
    pub seen: Vec<Seen>,
}

/// What the client does or sees.
#[derive(Clone, Debug)]
pub enum Step {
    /// Writes these bytes at once.
    Send(Vec<u8>),
    /// Writes these bytes one at a time, so far apart.
    Dribble(Duration, Vec<u8>),
    /// Lets time pass.
    Pause(Duration),
    /// Says that nothing more will be sent.
    Finish,
    /// Resets the connection.
    Reset,
    /// Begins anew on another connection.
    Connect,
    /// Waits until the upstream has seen so many requests.
    Await(usize),
    /// Waits until the upstream has done all that is written for so many requests.
    Settle(usize),
    /// Reads one answer, with one of these statuses (0: the connection closes without one).
    Answer { statuses: Vec<u16>, bodiless: bool, broken: bool },
    /// The last answer has this field, with this value if one is given.
    Header(String, Option<String>),
    /// The last answer lacks this field.
    NoHeader(String),
    /// The last answer's body is exactly this.
    Body(Vec<u8>),
    /// The last answer's body or head contains this.
    Has(Vec<u8>),
    /// The last answer contains this nowhere.
    HasNot(Vec<u8>),
    /// Nothing more comes, and the gate closes.
    Closes,
    /// Another request on this connection is answered.
    Open,
}

/// What the upstream does with one request.
#[derive(Clone, Debug)]
pub enum Act {
    /// Writes these bytes.
    Send(Vec<u8>),
    /// Writes these bytes one at a time, so far apart.
    Dribble(Duration, Vec<u8>),
    /// Writes these bytes again and again, until nobody takes them.
    Endless(Vec<u8>),
    /// Lets time pass.
    Pause(Duration),
    /// Closes.
    Close,
    /// Resets.
    Reset,
    /// Does nothing until the gate closes.
    Never,
}

/// What the upstream must have seen.
#[derive(Clone, Debug)]
pub enum Seen {
    /// So many requests.
    Count(usize),
    /// So many connections.
    Connections(usize),
    /// This request line, of one of them.
    Line(String),
    /// This field, on every request, with this value if one is given.
    Header(String, Option<String>),
    /// No such field on any.
    NoHeader(String),
    /// This body, of the last.
    Body(Vec<u8>),
    /// These bytes, in no head.
    Nowhere(Vec<u8>),
}

/// Reads cases, or says `LINE: mistake`.
pub fn read(text: &str) -> Result<Vec<Case>, String> {
    let mut cases: Vec<Case> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim_start();
        if word == "case" {
            cases.push(Case::new(rest));
            continue;
        }
        let case = cases.last_mut().ok_or_else(|| format!("{number}: a case begins with `case NAME`"))?;
        case.add(word, rest).map_err(|mistake| format!("{number}: {mistake}"))?;
    }
    Ok(cases)
}

impl Case {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            rfc: String::new(),
            repeat: 1,
            known: None,
            settings: Vec::new(),
            steps: Vec::new(),
            origin: Vec::new(),
            seen: Vec::new(),
        }
    }

    fn add(&mut self, word: &str, rest: &str) -> Result<(), String> {
        let step = match word {
            "rfc" => return store(&mut self.rfc, rest.to_owned()),
            "repeat" => return store(&mut self.repeat, number(rest)?),
            "known" => return store(&mut self.known, Some(rest.to_owned())),
            "server" | "upstream" | "config" => {
                self.settings.push((word.to_owned(), rest.to_owned()));
                return Ok(());
            }
            "origin" => return self.add_act(rest),
            "seen" => {
                self.seen.push(seen(rest)?);
                return Ok(());
            }
            "send" => Step::Send(bytes(rest)?),
            "dribble" => {
                let (pause, text) = rest.split_once(' ').ok_or("dribble PAUSE TEXT")?;
                Step::Dribble(duration(pause)?, bytes(text)?)
            }
            "pause" => Step::Pause(duration(rest)?),
            "finish" => Step::Finish,
            "reset" => Step::Reset,
            "connect" => Step::Connect,
            "await" => Step::Await(number(rest)?),
            "settle" => Step::Settle(number(rest)?),
            "answer" => answer(rest)?,
            "header" => {
                let (name, value) = field(rest);
                Step::Header(name, value)
            }
            "no-header" => Step::NoHeader(rest.to_owned()),
            "body" => Step::Body(bytes(rest)?),
            "has" => Step::Has(bytes(rest)?),
            "has-not" => Step::HasNot(bytes(rest)?),
            "closes" => Step::Closes,
            "open" => Step::Open,
            _ => return Err(format!("`{word}` is no keyword")),
        };
        self.steps.push(step);
        Ok(())
    }

    fn add_act(&mut self, rest: &str) -> Result<(), String> {
        let (word, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let act = match word {
            "next" => {
                self.origin.push(Vec::new());
                return Ok(());
            }
            "send" => Act::Send(bytes(rest)?),
            "endless" => Act::Endless(bytes(rest)?),
            "dribble" => {
                let (pause, text) = rest.split_once(' ').ok_or("origin dribble PAUSE TEXT")?;
                Act::Dribble(duration(pause)?, bytes(text)?)
            }
            "pause" => Act::Pause(duration(rest)?),
            "close" => Act::Close,
            "reset" => Act::Reset,
            "never" => Act::Never,
            _ => return Err(format!("`origin {word}` is nothing an upstream does")),
        };
        if self.origin.is_empty() {
            self.origin.push(Vec::new());
        }
        self.origin.last_mut().expect("one was pushed").push(act);
        Ok(())
    }
}

fn store<T>(place: &mut T, value: T) -> Result<(), String> {
    *place = value;
    Ok(())
}

fn answer(rest: &str) -> Result<Step, String> {
    let mut words = rest.split(' ');
    let statuses = words.next().unwrap_or_default().split('|');
    let statuses = statuses.map(|status| if status == "none" { Ok(0) } else { number(status) });
    let mut step = (false, false);
    for word in words {
        match word {
            "bodiless" => step.0 = true,
            "broken" => step.1 = true,
            _ => return Err(format!("`{word}` says nothing of an answer: bodiless, broken")),
        }
    }
    Ok(Step::Answer { statuses: statuses.collect::<Result<_, _>>()?, bodiless: step.0, broken: step.1 })
}

fn seen(rest: &str) -> Result<Seen, String> {
    let (word, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    Ok(match word {
        "line" => Seen::Line(String::from_utf8_lossy(&bytes(rest)?).into_owned()),
        "header" => {
            let (name, value) = field(rest);
            Seen::Header(name, value)
        }
        "no-header" => Seen::NoHeader(rest.to_owned()),
        "body" => Seen::Body(bytes(rest)?),
        "nowhere" => Seen::Nowhere(bytes(rest)?),
        "connections" => Seen::Connections(number(rest)?),
        count => Seen::Count(number(count)?),
    })
}

/// `NAME` or `NAME: VALUE`.
fn field(text: &str) -> (String, Option<String>) {
    match text.split_once(": ") {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (text.trim_end_matches(':').to_owned(), None),
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.trim().parse().map_err(|_| format!("`{text}` is no number"))
}

fn duration(text: &str) -> Result<Duration, String> {
    let millis = text.trim().strip_suffix("ms").ok_or_else(|| format!("`{text}` is no time such as 50ms"))?;
    Ok(Duration::from_millis(number(millis)?))
}

/// `\r \n \t \0 \\ \{ \s` (a space) and `\xHH`; `{TEXT*COUNT}` repeats.
pub fn bytes(text: &str) -> Result<Vec<u8>, String> {
    let mut read = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match first {
            b'\\' => {
                let (byte, after) = escaped(rest)?;
                read.push(byte);
                rest = after;
            }
            b'{' => {
                let text = std::str::from_utf8(rest).map_err(|_| "not UTF-8")?;
                let (inside, after) = text.split_once('}').ok_or("`{` without `}`")?;
                let (what, count) = inside.rsplit_once('*').ok_or("`{TEXT*COUNT}` repeats")?;
                read.extend(bytes(what)?.repeat(number(count)?));
                rest = after.as_bytes();
            }
            byte => read.push(*byte),
        }
    }
    Ok(read)
}

fn escaped(text: &[u8]) -> Result<(u8, &[u8]), String> {
    let [letter, rest @ ..] = text else { return Err("a line ends in `\\`".into()) };
    let byte = match letter {
        b'r' => b'\r',
        b'n' => b'\n',
        b't' => b'\t',
        b's' => b' ',
        b'0' => 0,
        b'\\' | b'{' => *letter,
        b'x' => {
            let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
            let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
            return Ok((byte.ok_or("`\\x` takes two hexadecimal digits")?, &rest[2..]));
        }
        _ => return Err(format!("`\\{}` is no escape", char::from(*letter))),
    };
    Ok((byte, rest))
}

#[test]
fn cases_are_read_as_written() {
    let text = "# a remark\ncase one\n  rfc 9112 §3\n  send GET {a*3}\\r\\n\\x00\\s\n  answer 400|none broken\n  \
                origin send x\n  origin next\n  origin close\n  seen 0\n  seen header a: b c\n";
    let cases = read(text).expect("is a case");
    assert_eq!((cases.len(), cases[0].name.as_str(), cases[0].rfc.as_str()), (1, "one", "9112 §3"));
    assert!(matches!(&cases[0].steps[0], Step::Send(bytes) if bytes == b"GET aaa\r\n\0 "));
    assert!(matches!(&cases[0].steps[1],
        Step::Answer { statuses, bodiless: false, broken: true } if statuses == &[400, 0]));
    assert_eq!(cases[0].origin.len(), 2);
    assert!(matches!(&cases[0].seen[1], Seen::Header(name, Some(value)) if name == "a" && value == "b c"));
    for (wrong, mistake) in
        [("send x", "1: a case"), ("case a\nsing", "2: `sing`"), ("case a\nsend \\y", "2: ")]
    {
        assert!(read(wrong).expect_err("is wrong").starts_with(mistake), "{wrong}");
    }
}
