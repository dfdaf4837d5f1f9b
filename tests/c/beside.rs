//! Another Rust static library, which contains its own copy of the standard library. `beside.c` uses it together with
//! libnucleus.a.

use std::collections::HashMap;
use std::panic::catch_unwind;

/// Uses parts of the Rust runtime that could clash: threads, thread-local data with destructors, unwinding. Returns 42.
#[no_mangle]
pub extern "C" fn beside_work() -> i32 {
    std::panic::set_hook(Box::new(|_| {}));
    let thread = std::thread::spawn(|| {
        let squares: HashMap<i32, i32> = (0..7).map(|n| (n, n * n)).collect();
        catch_unwind(|| assert!(squares[&6] == 0, "the square is {}", squares[&6])).map_err(|panic| {
            panic
                .downcast_ref::<String>()
                .map_or(0, |text| text.trim_start_matches("the square is ").parse().unwrap_or(0))
        })
    });
    let caught: Result<(), i32> = thread.join().unwrap_or(Ok(()));
    let unwound = catch_unwind(|| -> i32 { panic!("6") }).is_err();
    caught.err().unwrap_or(0) + 6 * i32::from(unwound)
}
