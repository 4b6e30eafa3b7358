//! Floor 3: what a request passes. A stage wraps the next one, takes one type of `model::exchange` and hands on
//! another; those that only decide are [`Step`]s, those that act before and after have a file of their own. Stages do
//! not know each other: `pipeline` puts them in order.

use std::future::{Future, Ready, ready};
use std::sync::Arc;

use futures_util::future::{BoxFuture, Either};
use tower_layer::Layer;

use crate::model::Fault;
use crate::model::exchange::Answer;

pub mod attempt;
pub mod cache;
pub mod credentials;
pub mod flight;
pub mod keep;
pub mod observe;
pub mod pages;
pub mod quota;
pub mod steps;

/// One stage of a request's way.
///
/// Not `tower::Service`: all waiting happens in `call`, where it is bounded and counted, so that there is no
/// `poll_ready`, and a shared `&self` needs neither clones nor boxed futures. The layers are tower's.
pub trait Stage<In>: Send + Sync {
    /// Answers `input`, or says what ended it.
    fn call(&self, input: In) -> impl Future<Output = Result<Answer, Fault>> + Send;
}

impl<In, S: Stage<In>> Stage<In> for Arc<S> {
    fn call(&self, input: In) -> impl Future<Output = Result<Answer, Fault>> + Send {
        self.as_ref().call(input)
    }
}

/// An answer that is at hand, or the way to one: for stages that answer most requests themselves, so that those do not
/// carry the size of the way below.
pub type Answering<'a> = Either<Ready<Result<Answer, Fault>>, BoxFuture<'a, Result<Answer, Fault>>>;

/// An answer that is at hand.
pub fn at_once<'a>(answer: Result<Answer, Fault>) -> Answering<'a> {
    Either::Left(ready(answer))
}

/// The way to an answer, boxed.
pub fn below<'a>(answering: impl Future<Output = Result<Answer, Fault>> + Send + 'a) -> Answering<'a> {
    Either::Right(Box::pin(answering))
}

/// What a step decides.
#[derive(Debug)]
pub enum Next<T> {
    /// On to the next stage.
    On(T),
    /// The way ends here.
    End(Result<Answer, Fault>),
}

impl<T> Next<T> {
    /// The way ends here with a fault.
    pub fn refuse(fault: impl Into<Fault>) -> Self {
        Self::End(Err(fault.into()))
    }
}

/// A decision that turns one type into the next, at once and without side effects that anybody waits for.
pub trait Decide<In>: Send + Sync {
    /// What the next stage takes.
    type Out;

    /// Decides.
    fn decide(&self, input: In) -> Next<Self::Out>;
}

/// A stage that only decides.
#[derive(Debug)]
pub struct Step<D, S> {
    decide: D,
    inner: S,
}

impl<In, D, S> Stage<In> for Step<D, S>
where
    D: Decide<In>,
    S: Stage<D::Out>,
{
    // Not an `async fn`: that would keep `input` in the future beside what it became.
    fn call(&self, input: In) -> impl Future<Output = Result<Answer, Fault>> + Send {
        match self.decide.decide(input) {
            Next::On(next) => Either::Left(self.inner.call(next)),
            Next::End(result) => Either::<_, Ready<_>>::Right(ready(result)),
        }
    }
}

/// The layer of a [`Step`].
#[derive(Debug, Clone)]
pub struct StepLayer<D>(D);

/// Puts a decision in front of a stage.
pub fn step<D>(decide: D) -> StepLayer<D> {
    StepLayer(decide)
}

impl<D: Clone, S> Layer<S> for StepLayer<D> {
    type Service = Step<D, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Step { decide: self.0.clone(), inner }
    }
}
