//! The simulated upstream and its traffic; nothing else imports it.
