//! Work done ahead of its consumer by a second thread, so that a step finds its batch ready.
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Items that wait ready, besides the one being made and the one in use: two even out unequal ones, more cost memory.
const READY: usize = 2;

/// The items of an iterator that another thread runs, in its order.
pub struct Ahead<T> {
    ready: Receiver<T>,
    waited: Duration,
}

impl<T> Ahead<T> {
    /// How long the consumer has waited for items so far.
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

impl<T> Iterator for Ahead<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let clock = Instant::now();
        let item = self.ready.recv().ok();
        self.waited += clock.elapsed();
        item
    }
}

/// Gives `work` the items of `items`, made by a thread of their own that runs at most `READY` and one ahead.
///
/// The thread ends with the iterator, or once `work` is done, after the item it is at; a panic of its is passed on.
pub fn ahead<T: Send, R>(items: impl Iterator<Item = T> + Send, work: impl FnOnce(&mut Ahead<T>) -> R) -> R {
    thread::scope(|scope| {
        let (send, ready) = sync_channel(READY);
        scope.spawn(move || {
            for item in items {
                if send.send(item).is_err() {
                    break;
                }
            }
        });
        let mut ahead = Ahead { ready, waited: Duration::ZERO };
        work(&mut ahead)
        // The receiver goes first, which wakes a thread that waits to send; then the scope waits for its end.
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn items_come_in_order_and_not_too_far_ahead() {
        let made = AtomicUsize::new(0);
        let items = (0..50).inspect(|_| made.store(made.load(Ordering::SeqCst) + 1, Ordering::SeqCst));
        let got: Vec<usize> = ahead(items, |items| {
            let mut got = Vec::new();
            for item in items {
                // The one just taken, those ready, and one that waits for room.
                assert!(made.load(Ordering::SeqCst) <= item + READY + 2, "{item}");
                got.push(item);
            }
            got
        });
        assert!(got.into_iter().eq(0..50));
    }

    #[test]
    fn whoever_leaves_early_ends_the_thread() {
        // Would run forever if the thread did not notice.
        assert_eq!(ahead(0.., |items| items.take(3).sum::<usize>()), 3);
        assert_eq!(ahead(0.., |_| 7), 7);
        let failed: Result<Vec<u8>, &str> = ahead([Ok(1), Err("gone"), Ok(2)].into_iter(), |items| items.collect());
        assert_eq!(failed, Err("gone"));
    }

    #[test]
    fn waiting_is_counted() {
        let slow = (0..2).inspect(|_| thread::sleep(Duration::from_millis(30)));
        let waited = ahead(slow, |items| {
            assert_eq!(items.by_ref().count(), 2);
            items.waited()
        });
        assert!(waited >= Duration::from_millis(50), "{waited:?}");
        let ready = ahead(0..2, |items| {
            thread::sleep(Duration::from_millis(60));
            assert_eq!(items.by_ref().count(), 2);
            items.waited()
        });
        assert!(ready < waited, "{ready:?}");
    }

    #[test]
    #[should_panic(expected = "a scoped thread panicked")]
    fn a_panic_is_passed_on() {
        ahead((0..2).inspect(|&i| assert!(i < 1, "planted")), |items| items.count());
    }
}
