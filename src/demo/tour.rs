//! The guided tour that `tollgate demo` prints: what to try, each with a line that can be pasted into a shell.

use std::net::SocketAddr;

use super::conversations::Conversations;
use super::spelling::spaced;
use super::traffic::PATH;

/// What the tour asks about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examples {
    /// A popular phone number: `+` and digits.
    pub phone: String,
    /// How many whole pages of 100 there are of everything.
    pub pages: usize,
}

impl Examples {
    /// Examples that exist in these conversations.
    #[must_use]
    pub fn of(conversations: &Conversations) -> Self {
        let phone = conversations.contacts().iter().find_map(|contact| contact.phone.clone());
        Self { phone: phone.unwrap_or_default(), pages: conversations.len() / 100 }
    }
}

/// The tour: a sentence, then a command on a line of its own, as often as there is something to see.
///
/// It is written for a gate nobody has called yet and an account of 10 calls a second.
#[must_use]
pub fn tour(gate: SocketAddr, admin: SocketAddr, examples: &Examples) -> String {
    let list = format!("http://{gate}{PATH}");
    let digits = examples.phone.trim_start_matches('+');
    let spaced = spaced(digits);
    let pages = examples.pages.clamp(1, 25);
    let headers = |query: String| {
        format!("curl -s -o /dev/null -D - '{list}?{query}' | grep -iE '^(http|age|cache-status|tollgate-)'")
    };
    let stops = [
        (
            "A question nobody has asked: the gate spends one call. Look at Cache-Status.",
            headers(format!("phone_number=%2B{digits}&per_page=20")),
        ),
        (
            "The same question again: answered from memory, for free.",
            headers(format!("phone_number=%2B{digits}&per_page=20")),
        ),
        (
            "The same question as another service would spell it: still free. Look at Tollgate-Understood.",
            headers(format!("per-page=20.0&PAGE=1&phone_number=+{spaced}&utm_source=x&email=")),
        ),
        (
            "A wrong value is understood anyway, and the answer says how.",
            headers(format!("PAGE=abc&per_page=20&phone_number=%2B{digits}")),
        ),
        (
            "How a request would be understood, without spending anything.",
            format!(
                "curl -s -G 'http://{gate}/-/explain' \
                 --data-urlencode 'request=GET {PATH}?PAGE=abc&perPage=2e1&phone_number=+{spaced}'"
            ),
        ),
        ("The messages themselves.", format!("curl -s '{list}?phone_number=%2B{digits}&per_page=2'")),
        (
            "25 questions at once, on an account that allows 10 calls a second: the gate refuses what it may not spend \
             (without the header they would wait their turn).",
            format!(
                "curl -sZ --parallel-immediate -o /dev/null -w '%{{http_code}} ' -H 'Tollgate-Timeout: 0.5' \
                 '{list}?per_page=100&page=[1-{pages}]'; echo"
            ),
        ),
        (
            "What all of this cost, and what it saved.",
            format!(
                "curl -s 'http://{admin}/metrics' | grep -E '^tollgate_(cache_results|upstream_requests)_total'"
            ),
        ),
    ];
    let mut text = String::new();
    for (sentence, command) in stops {
        text.push_str(sentence);
        text.push('\n');
        text.push_str(&command);
        text.push_str("\n\n");
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::super::conversations::Size;
    use super::*;

    fn commands(pages: usize) -> Vec<String> {
        let examples = Examples { phone: "+33639980123".to_owned(), pages };
        let (gate, admin) =
            (SocketAddr::from(([127, 0, 0, 1], 8080)), SocketAddr::from(([127, 0, 0, 1], 9090)));
        let text = tour(gate, admin, &examples);
        text.lines().filter(|line| line.starts_with("curl ")).map(str::to_owned).collect()
    }

    #[test]
    fn every_command_can_be_pasted() {
        let commands = commands(120);
        assert_eq!(commands.len(), 8);
        for command in commands {
            // Outside of quotes a shell must find nothing that it reads as its own, the pipes we mean aside.
            let outside: String = command.split('\'').step_by(2).collect();
            assert_eq!(command.matches('\'').count() % 2, 0, "{command}");
            assert!(!outside.contains(['&', '?', '[', '$', '"', '`', '*']), "{command}");
        }
    }

    #[test]
    fn the_tour_asks_what_it_says() {
        let commands = commands(120);
        assert!(
            commands[0]
                .contains("'http://127.0.0.1:8080/conversations/messages/list?phone_number=%2B33639980123&")
        );
        assert_eq!(commands[0], commands[1]);
        assert!(commands[2].contains("phone_number=+33+6+39+98+01+23&"));
        assert!(commands[6].contains("page=[1-25]'"));
        assert!(commands[7].contains("'http://127.0.0.1:9090/metrics'"));
    }

    #[test]
    fn examples_exist() {
        let conversations = Conversations::generate(1, Size { contacts: 5, messages: 250 });
        let examples = Examples::of(&conversations);
        assert_eq!(examples.pages, 2);
        assert_eq!(conversations.contacts()[0].phone.as_ref(), Some(&examples.phone));
    }
}
