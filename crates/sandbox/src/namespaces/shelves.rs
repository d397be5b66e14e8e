//! How many rooms should wait, and of which shape. Generic over what stands there, so that the rule can be tried without rooms.
//!
//! The usual shape always has some. Another one gets a shelf when it is asked for, and loses it when nobody asks for a while, or
//! when more shapes were asked for since than there may be shelves. A shelf that is found empty wants twice as many from then on;
//! one that nobody asks wants half as many, again and again, down to the least.

use super::waiting::Shape;
use loopd_domain::limits::{
    ROOM_SHAPE_FORGET_MS, ROOM_SHAPES_MAX, ROOMS_WAITING_HALVE_MS, ROOMS_WAITING_MAX, ROOMS_WAITING_MIN,
};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

const HALVE: Duration = Duration::from_millis(ROOMS_WAITING_HALVE_MS);
const FORGET: Duration = Duration::from_millis(ROOM_SHAPE_FORGET_MS);

pub(super) struct Shelves<T> {
    /// Lately asked ones first. One of the usual shape is always among them.
    all: Vec<Shelf<T>>,
    /// How many may wait, of all shapes.
    most: usize,
    usual: Shape,
}

struct Shelf<T> {
    shape: Shape,
    rooms: VecDeque<T>,
    wanted: usize,
    asked: Instant,
    halved: Instant,
}

impl<T> Shelf<T> {
    fn new(shape: Shape, wanted: usize, now: Instant) -> Self {
        Shelf { shape, rooms: VecDeque::new(), wanted, asked: now, halved: now }
    }
}

fn least(shape: &Shape, usual: &Shape) -> usize {
    if shape == usual { ROOMS_WAITING_MIN } else { 1 }
}

impl<T> Shelves<T> {
    pub(super) fn new(now: Instant) -> Self {
        let mut shelves = Shelves { all: Vec::new(), most: ROOMS_WAITING_MAX, usual: Shape::default() };
        shelves.expect(Shape::default(), now);
        shelves
    }

    /// This is the usual shape from now on. What waits of the one before is like any other.
    pub(super) fn expect(&mut self, usual: Shape, now: Instant) {
        self.all.retain(|shelf| shelf.shape != usual && !shelf.rooms.is_empty());
        self.all.insert(0, Shelf::new(usual.clone(), ROOMS_WAITING_MIN, now));
        self.usual = usual;
    }

    /// Lets no more wait than this.
    pub(super) fn limit(&mut self, most: usize) {
        self.most = most.min(ROOMS_WAITING_MAX);
    }

    /// As many wait as always should.
    pub(super) fn is_ready(&self) -> bool {
        self.count() >= ROOMS_WAITING_MIN.min(self.most)
    }

    /// At least one waits of each shape that is asked for.
    pub(super) fn has_each(&self) -> bool {
        self.all.iter().all(|shelf| !shelf.rooms.is_empty())
    }

    /// One of this shape for a session; the one that has waited longest.
    pub(super) fn take(&mut self, shape: &Shape, now: Instant) -> Option<T> {
        let at = self.all.iter().position(|shelf| shelf.shape == *shape);
        let mut shelf = match at {
            Some(at) => self.all.remove(at),
            None => Shelf::new(shape.clone(), least(shape, &self.usual), now),
        };
        let taken = shelf.rooms.pop_front();
        // A shelf that is only now made has not been too small.
        if at.is_some() && taken.is_none() {
            shelf.wanted = (shelf.wanted * 2).min(ROOMS_WAITING_MAX);
        }
        (shelf.asked, shelf.halved) = (now, now);
        self.all.insert(0, shelf);
        taken
    }

    /// One that was taken and could not be used; given back as [`Shelves::put`] does.
    pub(super) fn put_back(&mut self, shape: &Shape, room: T) -> Result<(), T> {
        match self.all.iter_mut().find(|shelf| shelf.shape == *shape) {
            Some(shelf) => shelf.rooms.push_front(room),
            None => return Err(room),
        }
        Ok(())
    }

    /// A new one. Given back when nobody wants such a one any more.
    pub(super) fn put(&mut self, shape: &Shape, room: T) -> Result<(), T> {
        match self.all.iter_mut().find(|shelf| shelf.shape == *shape) {
            Some(shelf) => shelf.rooms.push_back(room),
            None => return Err(room),
        }
        Ok(())
    }

    /// Which shape to make one more of.
    pub(super) fn missing(&self) -> Option<Shape> {
        let short = |shelf: &&Shelf<T>| shelf.rooms.len() < shelf.wanted;
        // Those with none at all first: one that is there helps more than a second one.
        let shelf = self.all.iter().filter(short).min_by_key(|shelf| !shelf.rooms.is_empty())?;
        (self.count() < self.most).then(|| shelf.shape.clone())
    }

    /// Those that have waited in vain, or whose shape is asked for no more.
    pub(super) fn surplus(&mut self, now: Instant) -> Vec<T> {
        let mut surplus = Vec::new();
        for shelf in &mut self.all {
            if now.saturating_duration_since(shelf.halved) >= HALVE {
                shelf.wanted = (shelf.wanted / 2).max(least(&shelf.shape, &self.usual));
                shelf.halved = now;
            }
        }
        let mut kept = 0;
        self.all.retain_mut(|shelf| {
            kept += 1;
            let forgotten = now.saturating_duration_since(shelf.asked) >= FORGET || kept > ROOM_SHAPES_MAX;
            if forgotten && shelf.shape != self.usual {
                surplus.extend(shelf.rooms.drain(..));
                return false;
            }
            // The newest go: the oldest are surely complete.
            let kept = shelf.wanted.min(self.most).min(shelf.rooms.len());
            surplus.extend(shelf.rooms.drain(kept..));
            true
        });
        surplus
    }

    /// Makes no more of this shape until somebody asks again. Answers those that are there.
    pub(super) fn forget(&mut self, shape: &Shape) -> Vec<T> {
        let at = self.all.iter().position(|shelf| shelf.shape == *shape && shape.may_be_impossible());
        at.map(|at| self.all.remove(at).rooms.into()).unwrap_or_default()
    }

    /// Takes out those of which something is true. With one whose shape may be impossible goes its shelf.
    pub(super) fn remove(&mut self, is: impl Fn(&T) -> bool) -> Vec<T> {
        let mut removed = Vec::new();
        self.all.retain_mut(|shelf| {
            let before = removed.len();
            for room in std::mem::take(&mut shelf.rooms) {
                if is(&room) { removed.push(room) } else { shelf.rooms.push_back(room) }
            }
            let forgotten = removed.len() > before && shelf.shape.may_be_impossible();
            if forgotten {
                removed.extend(shelf.rooms.drain(..));
            }
            !forgotten
        });
        removed
    }

    /// How many wait, of all shapes.
    pub(super) fn count(&self) -> usize {
        self.all.iter().map(|shelf| shelf.rooms.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loopd_domain::environment::RoomLimits;

    fn shape(pids: u64) -> Shape {
        Shape { limits: RoomLimits { pids, ..RoomLimits::default() }, ..Shape::default() }
    }

    /// Fills up; answers how many that took.
    fn fill(shelves: &mut Shelves<u32>) -> usize {
        let mut made = 0;
        while let Some(shape) = shelves.missing() {
            shelves.put(&shape, 7).unwrap();
            made += 1;
        }
        made
    }

    #[tokio::test]
    async fn a_burst_makes_more_wait_and_rest_makes_fewer() {
        let now = Instant::now();
        let mut shelves = Shelves::new(now);
        assert_eq!(fill(&mut shelves), ROOMS_WAITING_MIN);
        // One at a time is served from what there is.
        for _ in 0..100 {
            assert!(shelves.take(&Shape::default(), now).is_some());
            assert_eq!(fill(&mut shelves), 1);
        }
        for _ in 0..100 {
            shelves.take(&Shape::default(), now);
        }
        assert_eq!(fill(&mut shelves), ROOMS_WAITING_MAX);
        assert_eq!(shelves.surplus(now + HALVE / 2).len(), 0);
        assert_eq!(shelves.surplus(now + HALVE).len(), ROOMS_WAITING_MAX / 2);
        // Not twice for the same rest.
        assert_eq!(shelves.surplus(now + HALVE).len(), 0);
        for halves in 2..20 {
            shelves.surplus(now + HALVE * halves);
        }
        assert_eq!(shelves.count(), ROOMS_WAITING_MIN);
    }

    #[tokio::test]
    async fn a_shape_that_is_asked_for_gets_its_own_until_it_is_forgotten() {
        let now = Instant::now();
        let mut shelves = Shelves::new(now);
        fill(&mut shelves);
        assert!(shelves.take(&shape(1), now).is_none());
        assert_eq!(shelves.missing(), Some(shape(1)));
        assert_eq!(fill(&mut shelves), 1);
        assert!(shelves.take(&shape(2), now).is_none(), "of another shape");
        assert!(shelves.take(&shape(1), now).is_some());
        fill(&mut shelves);
        let usual = ROOMS_WAITING_MIN;
        shelves.surplus(now + FORGET);
        assert_eq!(shelves.missing(), None);
        assert!(shelves.put(&shape(1), 7).is_err(), "nobody wants it any more");
        assert_eq!(shelves.count(), usual);
    }

    #[tokio::test]
    async fn the_shapes_that_were_asked_for_longest_ago_make_way_and_the_usual_one_does_not() {
        let now = Instant::now();
        let mut shelves = Shelves::new(now);
        for pids in 1..=10 {
            shelves.take(&shape(pids), now);
            fill(&mut shelves);
            shelves.surplus(now);
            assert!(shelves.all.len() <= ROOM_SHAPES_MAX + 1);
        }
        assert!(shelves.take(&Shape::default(), now).is_some());
        assert!(shelves.take(&shape(10), now).is_some());
        assert!(shelves.take(&shape(1), now).is_none());
    }

    #[tokio::test]
    async fn all_shapes_together_are_bounded() {
        let now = Instant::now();
        let mut shelves = Shelves::new(now);
        for _ in 0..100 {
            for pids in 1..ROOM_SHAPES_MAX as u64 {
                shelves.take(&shape(pids), now);
            }
            shelves.take(&Shape::default(), now);
        }
        fill(&mut shelves);
        assert_eq!(shelves.count(), ROOMS_WAITING_MAX);
    }

    #[tokio::test]
    async fn the_usual_shape_is_what_the_server_expects() {
        let now = Instant::now();
        let mut shelves = Shelves::new(now);
        shelves.expect(shape(1), now);
        assert_eq!(shelves.missing(), Some(shape(1)));
        assert_eq!(fill(&mut shelves), ROOMS_WAITING_MIN);
        assert!(shelves.put(&Shape::default(), 7).is_err(), "one that was on its way");
        shelves.surplus(now + FORGET);
        assert_eq!(shelves.count(), ROOMS_WAITING_MIN);
    }

    #[tokio::test]
    async fn an_operator_may_want_fewer_or_none() {
        let now = Instant::now();
        let mut shelves = Shelves::new(now);
        fill(&mut shelves);
        shelves.limit(1);
        assert_eq!(shelves.surplus(now).len(), ROOMS_WAITING_MIN - 1);
        assert!(shelves.is_ready());
        shelves.limit(0);
        assert_eq!(shelves.surplus(now).len(), 1);
        assert!(shelves.take(&Shape::default(), now).is_none() && shelves.is_ready());
        assert_eq!(shelves.missing(), None);
    }
}
