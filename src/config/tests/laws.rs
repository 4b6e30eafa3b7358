//! What holds of every text.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::values;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever the bytes, there is a plan or there are mistakes.
    #[test]
    fn no_text_makes_it_panic(text in any::<String>(), line in "[\\[\\]a-z0-9_.=\"'{}, \\n#-]{0,60}") {
        for text in [text, line] {
            if let Err(mistakes) = load(&text, "config.toml", &world_of_nothing()) {
                prop_assert!(mistakes.iter().count() > 0);
                let _ = mistakes.to_string();
            }
        }
    }

    /// The same of the shipped configuration with something cut out and something put in.
    #[test]
    fn no_mutation_makes_it_panic(
        at in 0..SHIPPED.len(),
        cut in 0usize..40,
        put in prop_oneof!["[\\PC\\n]{0,6}", Just("\"".to_owned()), Just("[[".to_owned()), Just("= {".to_owned()), Just("\u{0}é\r".to_owned())],
    ) {
        let bytes = SHIPPED.as_bytes();
        let end = (at + cut).min(bytes.len());
        let mutated = [&bytes[..at], put.as_bytes(), &bytes[end..]].concat();
        let text = String::from_utf8_lossy(&mutated);
        match load(&text, "config.toml", &world_of_nothing()) {
            Ok(plan) => drop(plan.describe()),
            Err(mistakes) => {
                let lines = text.lines().count() + 1;
                prop_assert!(mistakes.iter().all(|mistake| (1..=lines).contains(&mistake.line) && mistake.column > 0));
                let _ = mistakes.to_string();
            }
        }
    }

    /// What is put in beside literal secrets makes none of them show.
    #[test]
    fn no_mistake_shows_a_secret(line in 0usize..11, at in any::<prop::sample::Index>(), put in "[\\[\\]{}=\"'a-z0-9., \\n#-]{1,5}") {
        let text = format!(
            "{BASE}{ACCOUNT}quota = \"none\"\n[clients]\na = {{ key = \"hunter2-a\", weight = 1 }}\n[admin]\ntoken = \"hunter2-b\"\n"
        );
        let mut lines: Vec<_> = text.lines().map(String::from).collect();
        let line = &mut lines[line + 3];
        let at = at.index(line.len() + 1);
        // A secret that is itself broken up may look like anything.
        let outside = line.find("hunter2").is_none_or(|secret| at < secret || at >= secret + 9);
        if !outside {
            return Ok(());
        }
        line.insert_str(at, &put);
        match load(&lines.join("\n"), "config.toml", &world_of_nothing()) {
            Ok(plan) => prop_assert!(!plan.describe().contains("hunter2")),
            Err(mistakes) => prop_assert!(!mistakes.to_string().contains("hunter2"), "{}", mistakes),
        }
    }

    /// What is written as a duration or size is read back as it was.
    #[test]
    fn durations_and_sizes_survive_being_written(millis in 1u64..31_000_000_000, bytes in 0usize..(1 << 30)) {
        let plan = with(&format!(
            "timeout = \"{}\"\n[server]\nmax_body_bytes = \"{}\"",
            values::duration_text(Duration::from_millis(millis)),
            values::size_text(bytes),
        ));
        prop_assert_eq!(plan.routes[0].timeout, Duration::from_millis(millis));
        prop_assert_eq!(plan.server.max_body_bytes, bytes);
    }
}

fn world_of_nothing() -> Fake {
    let vars = [("OCTOPUSH_API_KEY", "a"), ("OCTOPUSH_API_LOGIN", "b")];
    Fake { vars: vars.into(), files: HashMap::new() }
}
