//! A call's place in every window of its account and under its upstream's ceiling.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::quota::Account;
use crate::model::moment::Moment;

/// A place. Dropping it gives it back as truthfully as is known: a call that was sent is spent.
#[derive(Debug)]
pub struct Grant {
    account: Arc<Account>,
    began: Moment,
    state: GrantState,
    probe: Option<Probe>,
    member: usize,
    _permit: OwnedSemaphorePermit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GrantState {
    Unsent,
    Sent,
    Ended,
}

impl Grant {
    pub(super) fn new(
        account: Arc<Account>,
        began: Moment,
        probe: Option<Probe>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self { account, began, state: GrantState::Unsent, probe, member: 0, _permit: permit }
    }

    /// The account that gave it.
    pub fn shared_account(&self) -> Arc<Account> {
        self.account.clone()
    }

    /// Which of the accounts that may pay for its route it is from.
    pub fn member(&self) -> usize {
        self.member
    }

    /// It is from the account at this place of those that may pay.
    #[must_use]
    pub fn of_member(mut self, member: usize) -> Self {
        self.member = member;
        self
    }

    /// The probe that this call is, if the account was closed.
    pub fn take_probe(&mut self) -> Option<Probe> {
        self.probe.take()
    }

    /// The call goes out now: from here on it is spent.
    pub fn sent(&mut self) {
        self.state = GrantState::Sent;
    }

    /// The call did not go out after all: no connection could be made.
    pub fn unsent(&mut self) {
        self.state = GrantState::Unsent;
    }

    /// The first byte of the answer is here: the slot is free again one period from now.
    pub fn answered(&mut self) {
        if self.state == GrantState::Sent {
            self.state = GrantState::Ended;
            self.account.change(|books, now| books.ledger.end(now));
        }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        match self.state {
            GrantState::Sent => self.answered(),
            GrantState::Unsent => self.account.change(|books, _| books.ledger.give_back(self.began)),
            GrantState::Ended => {}
        }
        self.account.meters.permits.dec();
    }
}

/// The one call that asks a closed account again. Dropped without a word, it has found nothing out.
#[derive(Debug)]
pub struct Probe {
    account: Arc<Account>,
    told: bool,
}

impl Probe {
    pub(super) fn new(account: Arc<Account>) -> Self {
        Self { account, told: false }
    }

    /// The upstream answered; what that says of the account has been told to it.
    pub fn told(mut self) {
        self.told = true;
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if !self.told {
            self.account.change(|books, now| books.pause.lost(now.at));
        }
    }
}
