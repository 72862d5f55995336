//! Which connection is looked at when: with a thousand of them, a look at each in every tick would be most of the work.

use std::{
    collections::{BTreeSet, HashMap},
    time::Instant,
};

use tieline_openapi::ids::ConnectionId;

/// Each connection at most once, at the time when something of it is to be done.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    order: BTreeSet<(Instant, ConnectionId)>,
    at: HashMap<ConnectionId, Instant>,
}

impl Agenda {
    /// These, now, and no others.
    pub(super) fn begin(&mut self, ids: impl Iterator<Item = ConnectionId>, now: Instant) {
        self.order.clear();
        self.at.clear();
        for id in ids {
            self.put(id, now);
        }
    }

    /// Has it looked at then, and not when it was to be before.
    pub(super) fn put(&mut self, id: ConnectionId, at: Instant) {
        if let Some(before) = self.at.insert(id, at) {
            self.order.remove(&(before, id));
        }
        self.order.insert((at, id));
    }

    /// Those whose time has come, the longest due first; they are in it no more until they are put there again.
    pub(super) fn take(&mut self, now: Instant) -> Vec<ConnectionId> {
        let mut due = Vec::new();
        while let Some((_, id)) = self.order.first().copied().filter(|(at, _)| *at <= now) {
            self.order.pop_first();
            self.at.remove(&id);
            due.push(id);
        }
        due
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any instant will do, and there is no other way to have one")]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;

    #[test]
    fn each_is_taken_once_and_in_order() {
        let (start, mut agenda) = (Instant::now(), Agenda::default());
        let [one, two, three] = [1, 2, 3].map(|n| ConnectionId(Uuid::from_u128(n)));
        let after = |ms| start + Duration::from_millis(ms);
        agenda.begin([one, two, three].into_iter(), start);
        agenda.put(one, after(30));
        agenda.put(three, after(10));
        assert_eq!(agenda.take(after(20)), [two, three], "the later time holds");
        assert!(agenda.take(after(20)).is_empty(), "they are not there any more");
        agenda.put(one, after(25));
        assert_eq!(agenda.take(after(25)), [one], "what is heard comes earlier");
        assert!(agenda.take(after(60)).is_empty());
        agenda.begin([two].into_iter(), after(60));
        assert_eq!(agenda.take(after(60)), [two]);
    }
}
