//! The sweep. A fixed scenario calls a plugin. Each case injects one fault at one of these calls.

use std::collections::BTreeMap;
use std::ffi::{c_char, c_void};
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering};

use fault_plugin::control::Place;
use fault_plugin::{Fault, Kind, Proxy};
use nucleus::abi::*;

use crate::calls::{Arrays, Entry, Handle, Outcome, Problem, Setup, Wide};
use crate::children::{self, Choice, Report, Scenario, Task};
use crate::device_calls::{self, DeviceSession, OnDevice};

pub(crate) const MAX_K: usize = 16;
const VOCAB: usize = 129;

#[test]
fn a_plugin_may_fail_at_every_call_and_return_nonsense() {
    let choice = Choice::of_environment();
    match choice {
        Choice::All => println!("every place and every fault"),
        Choice::Part(seed) => println!(
            "every fault of every function, at a place that follows from the seed {seed}: NUCLEUS_TEST_SEED={seed} \
             repeats it, NUCLEUS_TEST_FULL=1 tries every place"
        ),
    }
    let reports = [Scenario::Cold, Scenario::Warm, Scenario::Device].map(|scenario| {
        let report = children::watch(Task::Sweep(scenario));
        let _ = fs::remove_dir_all(programs(scenario, std::process::id()));
        report
    });
    let findings: Vec<&String> = reports.iter().flat_map(|report| &report.findings).collect();
    let cases = |report: &Report| format!("{} ({} cases)", report.summary, report.cases);
    let verdict = match findings.len() {
        0 => "all survived".to_owned(),
        count => format!("{count} not survived"),
    };
    println!("fault sweep: {}: {verdict}", reports.each_ref().map(cases).join(", "));
    assert!(reports.iter().all(|report| report.cases > 100), "too few cases");
    let list: Vec<String> = findings.iter().map(|finding| format!("\n  {finding}")).collect();
    assert!(list.is_empty(), "{}", list.concat());
}

/// The calls of the scenario, with their correct results.
struct Script {
    proxy: Proxy,
    scenario: Scenario,
    plugin: PathBuf,
    /// The program directory. It is empty before each cold case and full before each warm case.
    programs: PathBuf,
    calls: Vec<(Problem, Arrays)>,
    /// The batches of the device scenario.
    on_device: [OnDevice; 2],
}

/// In the child: runs the cases from number `from` to the last one.
pub(crate) fn run_cases(scenario: Scenario, from: usize, choice: Choice) {
    count_warnings();
    let plugin = children::proxy_path();
    let proxy = Proxy::open(&plugin, &children::plugin_path()).unwrap();
    let programs = programs(scenario, std::os::unix::process::parent_id());
    let on_device = device_calls::batches();
    let script = Script { proxy, scenario, plugin, programs, calls: calls(), on_device };
    // In the device scenario, the caller initialises the plugin.
    let early = Kind::ALL.into_iter().filter(|kind| kind.is_error() && scenario != Scenario::Device);
    let early: Vec<Kind> = early.collect();
    if scenario == Scenario::Device {
        device_calls::initialize_plugin(script.proxy);
    }
    for (number, &kind) in early.iter().enumerate().skip(from) {
        let name = format!("initialisation, {kind:?}");
        children::run_case(number, &name, || script.initialization(kind));
    }
    // If this variable is set, only cases whose name contains its value run. It helps to repeat some cases.
    let only = std::env::var("NUCLEUS_FAULTS_ONLY").ok();
    let places = script.places();
    let cases = chosen(&places, choice);
    children::tell_summary(&format!(
        "{} places x {} faults ({})",
        places.len() + usize::from(!early.is_empty()),
        Kind::ALL.len(),
        format!("{scenario:?}").to_lowercase()
    ));
    for (number, &(at, kind)) in cases.iter().enumerate().skip(from.saturating_sub(early.len())) {
        let name = format!("call {at}, {}, {kind:?}", places[at].name());
        if only.as_ref().is_some_and(|only| !name.contains(only)) {
            continue;
        }
        children::run_case(early.len() + number, &name, || script.case(&places, at, kind));
    }
}

/// The program directory. All children of a parent use the same one.
fn programs(scenario: Scenario, parent: u32) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("faults-{scenario:?}-{parent}"))
}

/// Returns a batch whose rows take both paths, and a batch with every array.
pub(crate) fn problems() -> (Problem, Problem) {
    let (mixed, bounded) = (vec![5, 0, 16, 1], vec![7, 2]);
    (
        Problem { entry: Entry::Automatic, vocab: VOCAB, k: mixed, wide: Wide::Full, offset: 0 },
        Problem { entry: Entry::Bounded, vocab: VOCAB, k: bounded, wide: Wide::Slices, offset: 0 },
    )
}

/// Returns the calls of a scenario with logits on the host, and their correct results.
fn calls() -> Vec<(Problem, Arrays)> {
    let (mixed, bounded) = problems();
    [mixed.clone(), bounded, mixed].map(|problem| (problem.clone(), problem.expected(MAX_K))).into()
}

/// The cases to run: all cases, or one place for each pair of function and fault. The seed selects the place.
fn chosen(places: &[Place], choice: Choice) -> Vec<(usize, Kind)> {
    let all = (0..places.len())
        .flat_map(|at| Kind::ALL.map(|kind| (at, kind)))
        .filter(|&(at, kind)| places[at].takes(kind));
    let Choice::Part(seed) = choice else { return all.collect() };
    let mut groups: BTreeMap<(usize, u32), Vec<(usize, Kind)>> = BTreeMap::new();
    for (at, kind) in all {
        groups.entry((places[at].function, kind as u32)).or_default().push((at, kind));
    }
    let pick = |(group, cases): (&(usize, u32), &Vec<(usize, Kind)>)| {
        let mut hash = DefaultHasher::new();
        (seed, group).hash(&mut hash);
        cases[(hash.finish() % cases.len() as u64) as usize]
    };
    let mut cases: Vec<(usize, Kind)> = groups.iter().map(pick).collect();
    cases.sort_by_key(|&(at, kind)| (at, kind as u32));
    cases
}

static WARNINGS: AtomicU64 = AtomicU64::new(0);

/// Counts the warnings of the library's log.
fn count_warnings() {
    unsafe extern "C" fn count(_: *mut c_void, level: i32, _: *const c_char) {
        if level <= NUC_LOG_WARNING {
            WARNINGS.fetch_add(1, Ordering::SeqCst);
        }
    }
    let outcome = Outcome::of(|error| unsafe { nuc_set_log(Some(count), null_mut(), NUC_LOG_DEBUG, error) });
    assert!(outcome.is_ok(), "{outcome:?}");
}

impl Script {
    fn setup(&self) -> Setup<'_> {
        Setup {
            plugin: Some(&self.plugin),
            client: None,
            program_dir: Some(&self.programs),
            write_programs: self.scenario == Scenario::Cold,
            max_k: MAX_K,
            num_threads: 1,
            row_buckets: &[],
        }
    }

    /// Injects a fault into the initialisation of the plugin. The library initialises a plugin once per process, but it
    /// does not store a failure. So the next sampler initialises the plugin again.
    fn initialization(&self, kind: Kind) -> Vec<String> {
        self.prepare_directory();
        self.proxy.arm(Some(Fault::at_function(kind, "PJRT_Plugin_Initialize")));
        let (outcome, handle) = self.setup().create();
        let mut findings: Vec<String> = judge(kind, &outcome).into_iter().collect();
        if handle.is_some() || self.proxy.fired() == 0 {
            findings.push("the plugin was initialised before".to_owned());
        }
        findings.extend(handle.map(|handle| handle.destroy().message).filter(|message| !message.is_empty()));
        findings.extend(Some(self.proxy.objections()).filter(|objections| !objections.is_empty()));
        findings
    }

    /// Runs the scenario without a fault. Returns the list of its calls into the plugin.
    fn places(&self) -> Vec<Place> {
        // The first run compiles the programs and fills the directory for the warm scenario.
        let mut setup = self.setup();
        setup.write_programs = true;
        fs::create_dir_all(&self.programs).unwrap();
        self.proxy.arm(None);
        assert_eq!(self.play(&setup, None), [""; 0]);
        let mut lists = [(), ()].map(|()| {
            self.prepare_directory();
            self.proxy.arm(None);
            assert_eq!(self.play(&self.setup(), None), [""; 0]);
            self.proxy.places()
        });
        assert_eq!(lists[0], lists[1], "the calls of a run must repeat in the next");
        std::mem::take(&mut lists[0])
    }

    /// In the cold scenario, clears the directory. In the warm scenario, keeps the files of the first run.
    fn prepare_directory(&self) {
        if self.scenario == Scenario::Cold {
            let _ = fs::remove_dir_all(&self.programs);
        }
        fs::create_dir_all(&self.programs).unwrap();
    }

    fn case(&self, places: &[Place], at: usize, kind: Kind) -> Vec<String> {
        self.prepare_directory();
        let warnings = WARNINGS.load(Ordering::SeqCst);
        self.proxy.arm(Some(Fault::at_call(kind, at)));
        let mut findings = self.play(&self.setup(), Some(kind));
        let name = places[at].name();
        if name.ends_with("_Destroy") && kind.is_error() && WARNINGS.load(Ordering::SeqCst) == warnings {
            findings.push("the failure of a destructor was not logged".to_owned());
        }
        if name.ends_with("_Serialize") {
            // After the fault, a file may contain invalid data, and the next sampler may load it.
            self.proxy.arm(None);
            let later = self.play(&self.setup(), None);
            findings.extend(later.iter().map(|finding| format!("with the files that it left: {finding}")));
        }
        findings
    }

    /// Runs the scenario. A call may fail with a status that fits `kind`, and then must not change its arrays.
    /// Otherwise it must succeed with correct results. Returns the violations.
    fn play(&self, setup: &Setup<'_>, kind: Option<Kind>) -> Vec<String> {
        let judge = |outcome: &Outcome| match kind {
            _ if outcome.is_ok() => None,
            None => Some(format!("fails without a fault: {}", outcome.message)),
            Some(kind) => judge(kind, outcome),
        };
        if self.scenario == Scenario::Device {
            return self.play_on_device(kind, &judge);
        }
        let mut findings = Vec::new();
        let mut check = |step: &str, outcome: Outcome| {
            findings.extend(judge(&outcome).map(|finding| format!("{step}: {finding}")));
        };
        let (created, handle) = setup.create();
        check("create", created);
        if let Some(handle) = handle {
            let arbitrary = Problem { entry: Entry::Arbitrary, k: vec![0], ..self.calls[0].0.clone() };
            check("prewarm", handle.prewarm(&arbitrary, NUC_LOGITS_ON_HOST));
            check("describe", handle.describe());
            findings.extend(self.sample(&handle, &judge));
            let happened = self.proxy.fired() > 0;
            if happened {
                // Without the fault, every call must work again.
                self.proxy.arm(None);
                findings.extend(self.sample(&handle, &flawless));
                if kind == Some(Kind::AllFail) {
                    self.proxy.arm(Some(Fault::at_call(Kind::AllFail, 0)));
                }
            }
            let destroyed = handle.destroy();
            if !destroyed.is_ok() {
                findings.push(format!("destroy: {}", destroyed.message));
            }
            if kind.is_some() && !happened && self.proxy.fired() == 0 {
                findings.push("the call was not made".to_owned());
            }
        }
        findings.extend(Some(self.proxy.objections()).filter(|objections| !objections.is_empty()));
        findings
    }

    /// Like [`Script::play`], with logits on the device and a client of the caller.
    fn play_on_device(&self, kind: Option<Kind>, judge: &dyn Fn(&Outcome) -> Option<String>) -> Vec<String> {
        let client = self.proxy.quietly(|| device_calls::client(self.proxy));
        let setup = Setup { plugin: None, client: Some(&client), program_dir: None, ..self.setup() };
        let (created, handle) = setup.create();
        let mut findings: Vec<String> =
            judge(&created).map(|finding| format!("create: {finding}")).into_iter().collect();
        if let Some(handle) = handle {
            let session = DeviceSession::new(self.proxy, &client, &handle, &self.on_device);
            findings.extend(session.run(judge, kind));
            let happened = self.proxy.fired() > 0;
            if happened {
                self.proxy.arm(None);
                findings.extend(session.run(&flawless, None));
                if kind == Some(Kind::AllFail) {
                    self.proxy.arm(Some(Fault::at_call(Kind::AllFail, 0)));
                }
            }
            findings.extend(session.destroy());
            let destroyed = handle.destroy();
            if !destroyed.is_ok() {
                findings.push(format!("destroy: {}", destroyed.message));
            }
            if kind.is_some() && !happened && self.proxy.fired() == 0 {
                findings.push("the call was not made".to_owned());
            }
        }
        self.proxy.quietly(|| drop(client));
        findings.extend(Some(self.proxy.objections()).filter(|objections| !objections.is_empty()));
        findings
    }

    fn sample(&self, handle: &Handle, judge: &dyn Fn(&Outcome) -> Option<String>) -> Vec<String> {
        let mut findings = Vec::new();
        for (problem, right) in &self.calls {
            let (outcome, arrays) = problem.sample(handle, MAX_K);
            let finding = match outcome.is_ok() {
                true if arrays != *right => Some("success with wrong outputs".to_owned()),
                false if !arrays.is_untouched() => Some(format!("{:?}, but outputs written", outcome.status)),
                _ => judge(&outcome),
            };
            findings.extend(finding.map(|finding| format!("{:?} call: {finding}", problem.entry)));
        }
        findings
    }
}

/// Returns a violation if a call failed. After a fault, every call must succeed.
fn flawless(outcome: &Outcome) -> Option<String> {
    (!outcome.is_ok()).then(|| format!("after the fault: {}", outcome.message))
}

/// Checks the status of a call that failed because of a fault. The caller's arguments are correct, so the status must
/// not say that an argument is wrong.
fn judge(kind: Kind, outcome: &Outcome) -> Option<String> {
    let fits = match kind {
        Kind::Exhausted | Kind::LateExhausted => outcome.status == NUC_OUT_OF_MEMORY,
        _ => matches!(outcome.status, NUC_DEVICE_ERROR | NUC_INTERNAL),
    };
    (!fits).then(|| format!("{:?}: {}", outcome.status, outcome.message))
}
