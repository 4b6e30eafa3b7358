//! What is known by its place in the plan.

/// A declared client, by its place in the plan; 0 is `anonymous`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub u16);

/// A route, by its place in the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub u16);

impl ClientId {
    /// Its place in lists of clients.
    pub fn place(self) -> usize {
        usize::from(self.0)
    }
}

impl RouteId {
    /// Its place in lists of routes.
    pub fn place(self) -> usize {
        usize::from(self.0)
    }
}
