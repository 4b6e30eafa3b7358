//! An operator's hand on an account: closing it, opening it, correcting its ledger. Written down where there is a place for
//! it, so that a restart keeps it.

use std::time::Duration;

use super::books::Books;
use super::quota::Account;
use crate::rules::records::{Record, Spending};

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// A restart keeps it.
    Kept,
    /// A restart forgets it: it is in memory alone.
    Held,
}

impl Account {
    /// Closes it for so long: calls wait, or get something stale, or are refused.
    pub fn close_by_hand(&self, time: Duration) -> Done {
        self.change(|books, now| {
            books.pause.close(now.at + time);
            books.keep(&Record::Closed(now.date + time))
        })
    }

    /// Opens it, whoever closed it.
    pub fn open_by_hand(&self) -> Done {
        self.change(|books, _| {
            books.pause.open();
            books.ledger.unblock();
            books.rest.renewed();
            books.keep(&Record::Opened)
        })
    }

    /// So many calls are spent of the window called `name`; `None` if it has no such window.
    pub fn correct_by_hand(&self, name: &str, spent: u32) -> Option<Done> {
        self.change(|books, now| {
            let place = books.ledger.rules().position(|rule| rule.per.to_string() == name)?;
            books.ledger.correct(now, place, spent);
            let is_long = books.ledger.rules().nth(place).is_some_and(|rule| rule.is_long());
            if !is_long {
                return Some(Done::Held);
            }
            books.ledger.end_lease(place);
            Some(books.keep(&Record::Spent(Spending { window: name.to_owned(), calls: spent, at: now.date })))
        })
    }

    /// The names of its windows.
    pub fn windows(&self) -> Vec<String> {
        self.standing().into_iter().map(|window| window.name).collect()
    }
}

impl Books {
    fn keep(&mut self, record: &Record) -> Done {
        match self.journal.as_ref().map(|journal| journal.write(record)) {
            Some(Ok(())) => Done::Kept,
            Some(Err(error)) => {
                tracing::error!(%error, "what an operator did cannot be written down");
                Done::Held
            }
            None => Done::Held,
        }
    }
}
