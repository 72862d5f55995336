//! Scheduling of what must not wait for a processor.

/// Lets the calling thread run before all ordinary ones, with exact timers. A wire that waits for a processor adds delay
/// that no parameter asked for, and a BFD session that does goes down without a fault. Without the right to (in a user
/// namespace), it goes on as it is.
///
/// Makes two system calls and nothing else, so that it may be called between fork and exec.
pub(super) fn prefer_this_thread() {
    let parameters = libc::sched_param { sched_priority: 15 };
    // SAFETY: both calls take integers or a pointer to a struct that outlives them, and change only this thread.
    unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, 1);
        libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters);
    }
}
