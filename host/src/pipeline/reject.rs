//! Messages that an operator gives up by hand: found in their lanes, and dead-lettered when their turn comes,
//! without another call. Pure. Not here: who may do that (`admin`).

use crate::connector::Connector;
use crate::pipeline::counts::Observer;
use crate::pipeline::handler::Handler;
use crate::pipeline::lane::Until;
use crate::pipeline::run::{Clock, Reject, Worker};
use crate::pipeline::window::Delivery;

impl<C, H, K, O> Worker<C, H, K, O>
where
    C: Connector,
    H: Handler,
    K: Clock,
    O: Observer,
{
    /// Messages that an operator gives up: those that wait in a lane become due.
    pub(super) fn take_rejects(&mut self) {
        let is_own = |reject: &Reject| self.place_of(reject).is_some();
        for reject in self.control.take_rejects(is_own) {
            let Some(index) = self.place_of(&reject) else {
                continue;
            };
            self.unpark(index, reject.offset);
            let mut waiting = self.lanes.iter();
            let held = waiting.find(|(_, delivery)| {
                delivery.partition as usize == index && delivery.offset == reject.offset
            });
            let lane = held.map(|(lane, _)| lane);
            drop(waiting);
            if let Some(lane) = lane {
                self.rejected
                    .push((index as u32, reject.offset, reject.note));
                // What stands before it in its lane keeps its wait; an acknowledgement is waited for.
                let lanes = self.lanes.iter();
                let own = lanes.filter_map(|(other, delivery)| (other == lane).then_some(delivery));
                let is_next = own.min().is_some_and(|next| next.offset == reject.offset);
                if is_next && self.lanes.until(lane) != Some(Until::Ack) {
                    self.lanes.release(lane);
                }
            }
            if reject.found.send(lane.is_some()).is_err() {
                tracing::debug!("nobody waits for the answer to a reject any more");
            }
        }
    }

    fn place_of(&self, reject: &Reject) -> Option<usize> {
        self.partitions.iter().position(|partition| {
            let topic = self.plan.topics.get(usize::from(partition.topic));
            partition.number == reject.partition
                && topic.is_some_and(|topic| topic.name == reject.topic)
        })
    }

    /// The note of the operator who gave this one up.
    pub(super) fn rejected(&mut self, delivery: &Delivery) -> Option<String> {
        if self.rejected.is_empty() {
            return None;
        }
        let is_it = |(partition, offset, _): &(u32, u64, String)| {
            *partition == delivery.partition && *offset == delivery.offset
        };
        let found = self.rejected.iter().position(is_it)?;
        Some(self.rejected.swap_remove(found).2)
    }
}
