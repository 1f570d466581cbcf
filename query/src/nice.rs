//! Query threads give way to those that take samples in.
//!
//! Both want the same processors. A thread that evaluates for milliseconds would keep a thread
//! that has microseconds of work for a push from running until its slice ends; one that is nicer is
//! preempted at once (`sched(7)`, `setpriority(2)`).

/// Makes the calling thread nicer than it is, by Linux's measure from 0 to 19. Elsewhere niceness belongs to
/// whole processes, and nothing is done.
///
/// A thread may always become nicer, so that a refusal is only logged: queries are answered all the same.
pub(crate) fn be_nice(nice: i32) {
    if nice == 0 || !cfg!(target_os = "linux") {
        return;
    }
    // To Linux, "this process" is the calling thread.
    if let Err(error) = rustix::process::setpriority_process(None, nice) {
        tracing::warn!(nice, %error, "a query thread cannot be made nicer");
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn one_thread_is_nicer_and_others_are_not() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        let wanted = (before + 7).min(19);
        let inside = std::thread::spawn(move || {
            be_nice(wanted);
            nice()
        });
        assert_eq!(inside.join().unwrap(), wanted);
        assert_eq!(nice(), before);
    }
}
