//! Where operators' orders come in: from the admin port, whose threads wait for the answer, to the host's own
//! loop, which carries them out one after the other. Each leaves an audit line. Not here: what an order does
//! (`pipelines.rs`).

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use crate::admin::error::{Code, Error};
use crate::admin::operations::{Answer, Changes, Operations, Order};

use super::Reread;
use super::pipelines::{Pipelines, stopping};

/// Orders that wait; more are refused.
pub(super) const ORDERS_MAX: usize = 16;

type Reply = SyncSender<Result<Answer, Error>>;

pub(super) struct Desk {
    orders: Receiver<(Order, Reply)>,
    reread: Option<Reread>,
}

impl Desk {
    pub(super) fn new(reread: Option<Reread>) -> (Self, Arc<Operations>) {
        let (send, orders) = sync_channel::<(Order, Reply)>(ORDERS_MAX);
        let operations = move |order: Order| {
            let (reply, answer) = sync_channel(1);
            send.try_send((order, reply)).map_err(|why| match why {
                TrySendError::Full(_) => Error::new(
                    Code::Busy,
                    format!("{ORDERS_MAX} orders wait already"),
                    "try again when they are done",
                ),
                TrySendError::Disconnected(_) => stopping(),
            })?;
            answer.recv().unwrap_or_else(|_| Err(stopping()))
        };
        (Self { orders, reread }, Arc::new(operations))
    }

    /// Carries orders out until `patience` has passed without one.
    pub(super) fn serve(&self, pipelines: &mut Pipelines, patience: Duration) {
        let deadline = Instant::now() + patience;
        while !pipelines.is_stopping() {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.orders.recv_timeout(left) {
                Ok((order, reply)) => {
                    let answer = self.carry_out(pipelines, &order);
                    audit(&order, &answer);
                    if reply.send(answer).is_err() {
                        tracing::debug!("nobody waits for the answer to an order any more");
                    }
                }
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => {
                    std::thread::sleep(left);
                    return;
                }
            }
        }
    }

    fn carry_out(&self, pipelines: &mut Pipelines, order: &Order) -> Result<Answer, Error> {
        Ok(match order {
            Order::Pause { pipeline } => Answer::Done(pipelines.pause(pipeline, false)?),
            Order::Drain { pipeline } => Answer::Done(pipelines.pause(pipeline, true)?),
            Order::Resume { pipeline } => Answer::Done(pipelines.resume(pipeline)?),
            Order::Reload { accept_change } => {
                Answer::Done(self.reload(pipelines, *accept_change)?)
            }
            Order::Seek { group, request } => Answer::Sought(pipelines.seek(group, request)?),
            Order::Reject { group, request } => Answer::Done(pipelines.reject(group, request)?),
        })
    }

    pub(super) fn reload(
        &self,
        pipelines: &mut Pipelines,
        accept_change: bool,
    ) -> Result<Changes, Error> {
        let reread = self.reread.as_ref().ok_or_else(|| {
            Error::new(
                Code::BadConfiguration,
                "this host was not started from files",
                "restart it",
            )
        })?;
        let config = reread().map_err(|problems| {
            Error::new(
                Code::BadConfiguration,
                problems,
                "nothing was changed; `wasmill lint` shows the same",
            )
        })?;
        pipelines.reload(config, accept_change)
    }
}

fn audit(order: &Order, answer: &Result<Answer, Error>) {
    match answer {
        Ok(answer) => {
            tracing::info!(target: "audit", ?order, ?answer, "an operator's order was carried out");
        }
        Err(why) => {
            tracing::warn!(target: "audit", ?order, error = %why, "an operator's order was refused");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_max_bounds_what_waits_and_a_host_that_ends_answers_all() {
        let (desk, operations) = Desk::new(None);
        let order = || {
            operations(Order::Pause {
                pipeline: "p".to_owned(),
            })
        };
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..=ORDERS_MAX).map(|_| scope.spawn(order)).collect();
            let until = Instant::now() + Duration::from_secs(30);
            while !all.iter().any(|one| one.is_finished()) {
                assert!(Instant::now() < until, "nobody was refused");
                std::thread::sleep(Duration::from_millis(5));
            }
            std::thread::sleep(Duration::from_millis(50));
            let waiting = all.iter().filter(|one| !one.is_finished()).count();
            assert_eq!(waiting, ORDERS_MAX);
            drop(desk);
            let answers: Vec<_> = all
                .into_iter()
                .map(|one| one.join().unwrap().unwrap_err().message)
                .collect();
            let refused = answers.iter().filter(|why| why.contains("wait already"));
            assert_eq!(refused.count(), 1, "{answers:?}");
        });
    }
}
