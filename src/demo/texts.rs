//! What people write in messages: short and long, with emoji, from right to left, and with what breaks naive readers.

use super::dice::Dice;

const SHORT: &[&str] = &[
    "ok",
    "Merci !",
    "On my way.",
    "Oui",
    "Is my order ready?",
    "À demain, 9 h.",
    "STOP",
    "?",
    "Your code is 482 913",
    "C'est noté.",
];

const SENTENCES: &[&str] = &[
    "Your parcel is waiting at the desk until Saturday.",
    "Votre rendez-vous est confirmé pour jeudi à 14 h 30.",
    "The invoice you asked for is attached to your account.",
    "Pourriez-vous me rappeler en fin d'après-midi, s'il vous plaît ?",
    "I tried the link twice and it only says \"try again later\".",
    "Nous avons bien reçu votre demande et revenons vers vous sous 48 h.",
    "Could you move the delivery to the other address on file?",
    "Le code promo n'a pas fonctionné : -20 % annoncés, 0 % appliqués.",
    "The technician will come between 8 and 12; please keep the dog inside.",
    "Répondez 1 pour confirmer, 2 pour annuler.",
    "Prices are in € and include VAT; see https://example.com/terms?lang=en&v=2.",
    "Straße, naïve, Œuvre, Łódź, İstanbul: all of these should survive.",
];

const EMOJI: &[&str] = &[
    "👍",
    "🎉🎉🎉 c'est parti",
    "See you at the 🏖️ — bring 🍉 and 🧴",
    "👨‍👩‍👧‍👦 4 places, please",
    "Très content 😀👌🏽",
    "🏴󠁧󠁢󠁳󠁣󠁴󠁿 vs 🇫🇷 tonight?",
    "❤️",
];

const RIGHT_TO_LEFT: &[&str] = &[
    "شكرا جزيلا",
    "موعدك غدا الساعة 10:30، هل يناسبك؟",
    "تم استلام طلبك رقم 4821 وسيصلك خلال يومين.",
    "תודה רבה!",
    "ההזמנה שלך מוכנה לאיסוף בסניף (שער 3).",
    "سلام، سفارش من کِی می‌رسد؟",
    "Ref. 77-A: \u{202b}مرحبا بكم\u{202c} — bonjour",
];

const AWKWARD: &[&str] = &[
    "She said: \"\\o/\" and left",
    "line one\nline two\r\n\ttabbed",
    "[{\"message_id\": \"not one\"}, ]",
    "</script><!-- & %00 %2B + -->",
    "e\u{301}te\u{301} (decomposed) and \u{feff}a mark",
    "\u{1}\u{7f} control",
];

/// A text as somebody might send it: mostly short, sometimes a page long, now and then awkward.
pub fn text(dice: &mut Dice) -> String {
    match dice.below(100) {
        0..40 => (*dice.one_of(SHORT)).to_owned(),
        40..65 => sentences(1, 2, dice),
        65..78 => sentences(5, 14, dice),
        78..88 => (*dice.one_of(EMOJI)).to_owned(),
        88..97 => (*dice.one_of(RIGHT_TO_LEFT)).to_owned(),
        _ => (*dice.one_of(AWKWARD)).to_owned(),
    }
}

fn sentences(least: u64, most: u64, dice: &mut Dice) -> String {
    let count = least + dice.below(most - least + 1);
    let chosen: Vec<&str> = (0..count).map(|_| *dice.one_of(SENTENCES)).collect();
    chosen.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_text_comes_up() {
        let mut dice = Dice::new(3);
        let texts: Vec<String> = (0..2_000).map(|_| text(&mut dice)).collect();
        assert!(texts.iter().any(|text| text.len() < 4));
        assert!(texts.iter().any(|text| text.len() > 600));
        for sign in ["👍", "شكرا", "תודה", "\"", "\n", "\u{202b}"] {
            assert!(texts.iter().any(|text| text.contains(sign)), "no text with {sign:?}");
        }
    }
}
