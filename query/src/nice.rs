//! Query threads give way to those that take samples in.
//!
//! Both want the same processors. A thread that evaluates for milliseconds would keep a thread
//! that has microseconds of work for a push from running until its slice ends; one that is nicer is
//! preempted at once (`sched(7)`, `setpriority(2)`).

/// Nobody can be nicer.
const MOST: i32 = 19;

/// Makes the calling thread nicer than it is by so much, at most to Linux's 19. Elsewhere niceness belongs to
/// whole processes, and nothing is done.
///
/// A thread may always become nicer, so that a refusal is only logged: queries are answered all the same.
pub(crate) fn be_nice(nice: i32) {
    if nice == 0 || !cfg!(target_os = "linux") {
        return;
    }
    // To Linux, "this process" is the calling thread.
    let nicer = rustix::process::getpriority_process(None).and_then(|now| {
        rustix::process::setpriority_process(None, now.saturating_add(nice).min(MOST))
    });
    if let Err(error) = nicer {
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
        let inside = std::thread::spawn(move || {
            [3, 4, MOST].map(|by| {
                be_nice(by);
                nice()
            })
        });
        let wanted = [3, 7, 7 + MOST].map(|by| (before + by).min(MOST));
        assert_eq!(inside.join().unwrap(), wanted);
        assert_eq!(nice(), before);
    }
}
