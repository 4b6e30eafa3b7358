//! Contacts, conversations and messages, generated from a seed. Nobody in here exists.
//!
//! Phone numbers are from the ranges that Arcep keeps for fiction, addresses from `example.org` and its siblings.
//! A contact has one conversation for each channel it is reached by; popularity follows Zipf's law, and the contact of
//! rank 0 has everything, so that an example made of it always works.

use std::fmt::Write as _;

use bytes::Bytes;
use serde_json::Value;

use super::asked::Selector;
use super::dice::{Dice, Zipf};
use super::texts;

/// How much to generate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// How many contacts: at least 1, at most 50,000, which is how many numbers there are for fiction.
    pub contacts: usize,
    /// How many messages, over all contacts.
    pub messages: usize,
}

impl Default for Size {
    fn default() -> Self {
        Self { contacts: 400, messages: 12_000 }
    }
}

/// How a conversation reaches its contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Text messages.
    Sms,
    /// Rich text messages.
    Rcs,
    /// Whatever reaches the phone.
    Multi,
    /// Messages to a Facebook page; the phone number is not known there.
    Facebook,
}

impl Channel {
    /// The name in a message's `channel`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sms => "sms",
            Self::Rcs => "rcs",
            Self::Multi => "multi_channel",
            Self::Facebook => "facebook",
        }
    }
}

/// Somebody to write to. Each has a phone number or a Facebook ID, most have several of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// A display name, or nothing for a number that nobody has named.
    pub name: Option<String>,
    /// `+` and digits.
    pub phone: Option<String>,
    /// An address in lower case. It finds nothing where there is no phone number.
    pub email: Option<String>,
    /// Digits, without `fid_`.
    pub facebook: Option<String>,
    /// UUIDs of the contact's conversations, without `cid_`.
    pub conversations: Vec<String>,
}

#[derive(Debug)]
struct Conversation {
    id: String,
    contact: usize,
    channel: Channel,
}

/// A message as it is listed.
#[derive(Clone, Debug)]
pub struct Message {
    /// The `message_id`.
    pub id: String,
    /// The JSON object, written once.
    pub json: Bytes,
    conversation: usize,
    status: Option<&'static str>,
}

/// Everything that was said so far.
#[derive(Debug)]
pub struct Conversations {
    contacts: Vec<Contact>,
    conversations: Vec<Conversation>,
    /// Positions in `conversations`, by contact.
    of_contact: Vec<Vec<usize>>,
    /// Oldest first, so that an arrival is a push; everything public is newest first.
    messages: Vec<Message>,
    popularity: Zipf,
    dice: Dice,
}

impl Conversations {
    /// The same seed and size give the same conversations, today and everywhere.
    #[must_use]
    pub fn generate(seed: u64, size: Size) -> Self {
        let mut dice = Dice::new(seed);
        let count = size.contacts.clamp(1, NUMBERS_FOR_FICTION * RANGES.len());
        let mut all = Self {
            contacts: Vec::with_capacity(count),
            conversations: Vec::new(),
            of_contact: Vec::with_capacity(count),
            messages: Vec::with_capacity(size.messages),
            popularity: Zipf::new(count),
            dice: Dice::new(dice.roll()),
        };
        let first_number = dice.position(NUMBERS_FOR_FICTION);
        for rank in 0..count {
            all.add_contact(rank, first_number, &mut dice);
        }
        all.arrive(size.messages);
        all
    }

    /// The contacts, most popular first.
    #[must_use]
    pub fn contacts(&self) -> &[Contact] {
        &self.contacts
    }

    /// How many messages there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether nobody said anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// The messages of every conversation that each filter selects, newest first.
    #[must_use]
    pub fn find(&self, filters: &[Vec<Selector>]) -> Vec<&Message> {
        let meant: Vec<bool> = self
            .conversations
            .iter()
            .map(|conversation| {
                filters
                    .iter()
                    .all(|filter| filter.iter().any(|selector| self.selects(selector, conversation)))
            })
            .collect();
        self.messages.iter().rev().filter(|message| meant[message.conversation]).collect()
    }

    /// Adds messages at the head of the list, from or to contacts as popular as ever; their ids, newest first.
    pub fn arrive(&mut self, count: usize) -> Vec<String> {
        let mut ids: Vec<String> = (0..count)
            .map(|_| {
                let contact = self.popularity.draw(&mut self.dice);
                self.arrive_for(contact)
            })
            .collect();
        ids.reverse();
        ids
    }

    /// Adds one message at the head of the list, in a conversation with the contact of this rank; its id.
    ///
    /// # Panics
    /// If there is no such contact.
    pub fn arrive_for(&mut self, contact: usize) -> String {
        let conversation = *self.dice.one_of(&self.of_contact[contact]);
        let id = self.dice.uuid();
        let text = texts::text(&mut self.dice);
        let status = match self.dice.below(100) {
            0..55 => None,
            55..60 => Some(SENDING),
            60..70 => Some("sent"),
            70..97 => Some(DELIVERED),
            _ => Some("failed"),
        };
        let agent = self.dice.chance(20).then(|| format!("agent-{}@example.com", 1 + self.dice.below(9)));
        let line = self.dice.below(3);
        let written = Written { id: &id, text: &text, status, agent: agent.as_deref(), line };
        let json = self.write(&written, &self.conversations[conversation]);
        self.messages.push(Message { id: id.clone(), json, conversation, status });
        id
    }

    /// A message that was being sent has reached its contact: its bytes change under the same id. False if there is no
    /// such message, or it was not being sent.
    pub fn deliver(&mut self, id: &str) -> bool {
        let sending = |message: &&mut Message| message.id == id && message.status == Some(SENDING);
        let Some(message) = self.messages.iter_mut().find(sending) else { return false };
        // Within JSON strings every quote is escaped, so this member cannot be mistaken for text.
        let json = String::from_utf8_lossy(&message.json)
            .replace("\"delivery_status\":\"sending\"", "\"delivery_status\":\"delivered\"");
        message.json = json.into();
        message.status = Some(DELIVERED);
        true
    }

    /// Takes a message away, as an erased one is. False if there is no such message.
    pub fn remove(&mut self, id: &str) -> bool {
        let before = self.messages.len();
        self.messages.retain(|message| message.id != id);
        self.messages.len() < before
    }

    fn selects(&self, selector: &Selector, conversation: &Conversation) -> bool {
        let contact = &self.contacts[conversation.contact];
        let by_phone = conversation.channel != Channel::Facebook;
        match selector {
            Selector::Phone(digits) => {
                by_phone && contact.phone.as_deref().and_then(|phone| phone.strip_prefix('+')) == Some(digits)
            }
            Selector::Email(address) => by_phone && contact.email.as_ref() == Some(address),
            Selector::Facebook(id) => !by_phone && contact.facebook.as_ref() == Some(id),
            Selector::Conversation(id) => conversation.id == *id,
        }
    }

    fn add_contact(&mut self, rank: usize, first_number: usize, dice: &mut Dice) {
        let first = rank == 0;
        let has_phone = first || !dice.chance(8);
        let has_facebook = first || !has_phone || dice.chance(25);
        let phone = has_phone.then(|| phone_number(rank, first_number));
        let (given, address) = *dice.one_of(NAMES);
        let initial = *dice.one_of(&["B", "D", "K", "L", "M", "R", "T", "V"]);
        let tag = if dice.chance(15) { "+news" } else { "" };
        let domain = *dice.one_of(&["example.org", "example.com", "example.net"]);
        let email = (first || dice.chance(70)).then(|| format!("{address}.{rank}{tag}@{domain}"));
        let name = (first || dice.chance(95)).then(|| format!("{given} {initial}."));
        let facebook = has_facebook.then(|| (100_000_000_000 + dice.below(900_000_000_000)).to_string());

        let mut channels = Vec::new();
        if has_phone {
            channels.push(Channel::Sms);
            for (channel, percent) in [(Channel::Rcs, 40), (Channel::Multi, 25)] {
                if first || dice.chance(percent) {
                    channels.push(channel);
                }
            }
        }
        if has_facebook {
            channels.push(Channel::Facebook);
        }
        let ids: Vec<String> = channels.iter().map(|_| dice.uuid()).collect();
        let start = self.conversations.len();
        self.of_contact.push((start..start + channels.len()).collect());
        for (id, channel) in ids.iter().zip(channels) {
            self.conversations.push(Conversation { id: id.clone(), contact: rank, channel });
        }
        self.contacts.push(Contact { name, phone, email, facebook, conversations: ids });
    }

    /// Writes a message with its members in the order of the reference page.
    fn write(&self, message: &Written<'_>, conversation: &Conversation) -> Bytes {
        let contact = &self.contacts[conversation.contact];
        let facebook = conversation.channel == Channel::Facebook;
        let by_phone = |value| if facebook { None } else { value };
        let by_facebook = |value| if facebook { value } else { None };
        let line = format!("+3319900{:04}", message.line);
        let user_phone = by_phone(Some(line.as_str()));
        let user_page = by_facebook(Some(PAGE));
        let mut json = String::with_capacity(512 + message.text.len());
        Object::within(&mut json, |object| {
            object.text("message_id", Some(message.id));
            object.text("text", Some(message.text));
            object.text("direction", Some(if message.status.is_some() { "outbound" } else { "inbound" }));
            object.text("delivery_status", message.status);
            object.text("channel", Some(conversation.channel.name()));
            object.text("user_identifier", user_phone.or(user_page));
            object.object("user_identifiers", |user| {
                user.text("phone_number", user_phone);
                user.text("email", Some("hello@example.com"));
                user.text("facebook_page_id", user_page);
            });
            object.text("agent_assigned_to", message.agent);
            object.text("contact_name", contact.name.as_deref());
            object.object("contact_identifiers", |other| {
                other.text("phone_number", by_phone(contact.phone.as_deref()));
                other.text("email", by_phone(contact.email.as_deref()));
                other.text("facebook_id", by_facebook(contact.facebook.as_deref()));
            });
        });
        json.into()
    }
}

/// What `write` needs to know of a message beside its conversation.
struct Written<'a> {
    id: &'a str,
    text: &'a str,
    /// The delivery status of what the company sent; nothing for what it received.
    status: Option<&'static str>,
    agent: Option<&'a str>,
    /// Which of the company's numbers was used.
    line: u64,
}

/// A JSON object in the making: members stay in the order they are written in.
struct Object<'a> {
    json: &'a mut String,
    separator: &'static str,
}

impl Object<'_> {
    fn within(json: &mut String, members: impl FnOnce(&mut Object<'_>)) {
        json.push('{');
        members(&mut Object { json, separator: "" });
        json.push('}');
    }

    fn name(&mut self, name: &str) {
        // Writing to a String cannot fail.
        let _ = write!(self.json, "{}\"{name}\":", self.separator);
        self.separator = ",";
    }

    fn text(&mut self, name: &str, value: Option<&str>) {
        self.name(name);
        let _ = write!(self.json, "{}", value.map_or(Value::Null, Value::from));
    }

    fn object(&mut self, name: &str, members: impl FnOnce(&mut Object<'_>)) {
        self.name(name);
        Object::within(self.json, members);
    }
}

const SENDING: &str = "sending";
const DELIVERED: &str = "delivered";

/// The company's own page.
const PAGE: &str = "100000000000001";

/// Arcep's ranges for works of fiction, without the leading 0; the mobile one first. The company's own numbers are in
/// one that is not here, so that no contact can have one of them.
const RANGES: &[&str] = &["63998", "26191", "35301", "46571", "53649"];
const NUMBERS_FOR_FICTION: usize = 10_000;

/// Every rank has a number of its own: 7,919 has no divisor in common with 10,000, so steps of it meet each once.
fn phone_number(rank: usize, first: usize) -> String {
    let range = RANGES[rank / NUMBERS_FOR_FICTION];
    format!("+33{range}{:04}", (first + rank * 7_919) % NUMBERS_FOR_FICTION)
}

/// Display names, and how they stand in an address.
const NAMES: &[(&str, &str)] = &[
    ("Léa", "lea"),
    ("Noah", "noah"),
    ("Zoé", "zoe"),
    ("Jean-Luc", "jean-luc"),
    ("Anaïs", "anais"),
    ("Bjørn", "bjorn"),
    ("Siobhán O'", "siobhan"),
    ("سلمى", "salma"),
    ("يوسف", "youssef"),
    ("יעל", "yael"),
    ("美咲", "misaki"),
    ("Олена", "olena"),
    ("Amara 🌿", "amara"),
    ("Paulo", "paulo"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    const SMALL: Size = Size { contacts: 60, messages: 3_000 };

    fn listed(conversations: &Conversations) -> Vec<Bytes> {
        conversations.find(&[]).iter().map(|message| message.json.clone()).collect()
    }

    fn member(message: &Message, pointer: &str) -> Value {
        let value: Value = serde_json::from_slice(&message.json).unwrap_or_default();
        value.pointer(pointer).cloned().unwrap_or_default()
    }

    #[test]
    fn the_same_seed_gives_the_same_conversations() {
        let (one, same) = (Conversations::generate(7, SMALL), Conversations::generate(7, SMALL));
        assert_eq!(one.contacts(), same.contacts());
        assert_eq!(listed(&one), listed(&same));
        assert_ne!(listed(&one), listed(&Conversations::generate(8, SMALL)));
    }

    #[test]
    fn a_release_does_not_change_the_data_unnoticed() {
        let conversations = Conversations::generate(1, SMALL);
        assert_eq!(conversations.contacts()[0].phone.as_deref(), Some("+33639987457"));
        assert_eq!(conversations.find(&[])[0].id, "25c41a69-af47-4bc5-9317-8827e13e745c");
    }

    #[test]
    fn messages_have_the_shape_of_the_reference_page() {
        let conversations = Conversations::generate(7, SMALL);
        for message in conversations.find(&[]) {
            let json = String::from_utf8_lossy(&message.json);
            let mut rest = &*json;
            for name in [
                "message_id",
                "text",
                "direction",
                "delivery_status",
                "channel",
                "user_identifier",
                "user_identifiers\":{\"phone_number",
                "email",
                "facebook_page_id",
                "agent_assigned_to",
                "contact_name",
                "contact_identifiers\":{\"phone_number",
                "email",
                "facebook_id",
            ] {
                let found = rest.split_once(&format!("\"{name}\":"));
                assert!(found.is_some(), "{name} is not where it belongs in {json}");
                rest = found.unwrap_or_default().1;
            }
            assert!(serde_json::from_str::<Value>(&json).is_ok(), "{json}");
        }
    }

    #[test]
    fn every_channel_direction_and_script_occurs() {
        let conversations = Conversations::generate(7, SMALL);
        let mut seen: HashMap<Value, u32> = HashMap::new();
        for message in conversations.find(&[]) {
            for pointer in ["/channel", "/direction", "/delivery_status"] {
                *seen.entry(member(message, pointer)).or_default() += 1;
            }
        }
        for value in [
            "sms",
            "rcs",
            "multi_channel",
            "facebook",
            "inbound",
            "outbound",
            "sending",
            "sent",
            "delivered",
            "failed",
        ] {
            assert!(seen.contains_key(&Value::from(value)), "no {value}");
        }
        assert_eq!(seen.get(&Value::Null), seen.get(&Value::from("inbound")));
    }

    #[test]
    fn numbers_are_unique_and_fictional() {
        let conversations = Conversations::generate(3, Size { contacts: 20_000, messages: 0 });
        let mut phones: Vec<&str> =
            conversations.contacts().iter().filter_map(|c| c.phone.as_deref()).collect();
        let count = phones.len();
        assert!(phones.iter().all(|phone| phone.len() == 12 && RANGES.contains(&&phone[3..8])));
        phones.sort_unstable();
        phones.dedup();
        assert_eq!(phones.len(), count);
    }

    #[test]
    fn popular_contacts_have_more_to_say() {
        let conversations = Conversations::generate(7, SMALL);
        let count = |rank: usize| {
            let ids = &conversations.contacts()[rank].conversations;
            conversations.find(&[ids.iter().cloned().map(Selector::Conversation).collect()]).len()
        };
        // The harmonic number of 60 is 4.68.
        assert!((550..740).contains(&count(0)), "{}", count(0));
        assert!(count(0) > count(3) && count(3) > count(40));
    }

    #[test]
    fn selectors_select_what_the_reference_page_says() {
        let conversations = Conversations::generate(7, SMALL);
        let first = conversations.contacts()[0].clone();
        let channels = |selector: Selector| {
            let mut found: Vec<String> = conversations
                .find(&[vec![selector]])
                .iter()
                .map(|message| member(message, "/channel").as_str().unwrap_or_default().to_owned())
                .collect();
            found.sort_unstable();
            found.dedup();
            found
        };
        let digits = first.phone.unwrap_or_default().trim_start_matches('+').to_owned();
        assert_eq!(channels(Selector::Phone(digits)), ["multi_channel", "rcs", "sms"]);
        assert_eq!(
            channels(Selector::Email(first.email.unwrap_or_default())),
            ["multi_channel", "rcs", "sms"]
        );
        assert_eq!(channels(Selector::Facebook(first.facebook.unwrap_or_default())), ["facebook"]);
        assert_eq!(channels(Selector::Conversation(first.conversations[1].clone())), ["rcs"]);
        assert!(channels(Selector::Email("nobody@example.org".to_owned())).is_empty());
    }

    #[test]
    fn arrivals_stand_at_the_head() {
        let mut conversations = Conversations::generate(7, SMALL);
        let before = listed(&conversations);
        let ids = conversations.arrive(3);
        let all = conversations.find(&[]);
        assert_eq!(
            all[..3].iter().map(|message| &message.id).collect::<Vec<_>>(),
            ids.iter().collect::<Vec<_>>()
        );
        assert_eq!(listed(&conversations)[3..], before);
    }

    #[test]
    fn messages_are_delivered_and_removed() {
        let mut conversations = Conversations::generate(7, SMALL);
        let sending = |message: &&&Message| member(message, "/delivery_status") == "sending";
        let id = conversations
            .find(&[])
            .iter()
            .find(sending)
            .map(|message| message.id.clone())
            .unwrap_or_default();
        assert!(conversations.deliver(&id) && !conversations.deliver(&id));
        let status =
            conversations.find(&[]).iter().find(|m| m.id == id).map(|m| member(m, "/delivery_status"));
        assert_eq!(status, Some(Value::from("delivered")));
        assert!(conversations.remove(&id) && !conversations.remove(&id));
        assert_eq!(conversations.len(), SMALL.messages - 1);
    }
}
