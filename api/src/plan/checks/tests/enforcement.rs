//! What a plan says of rules that no cloud holds.

use tieline_openapi::v1::Severity;
use tieline_providers::{PrefixControl, Sourced};

use super::{super::enforcement as check, *};

fn told(intent: &ConnectionIntent, a: PrefixControl, b: PrefixControl) -> Vec<(Severity, String)> {
    let sourced = |control| Sourced::new(control, Rule::new("a rule", "a manual"));
    let mut findings = Findings::default();
    check(intent, &Ends { a: sourced(a), b: sourced(b) }, &mut findings);
    findings.into_vec().into_iter().map(|f| (f.severity, format!("{} {}", f.code, f.pointer))).collect()
}

#[test]
fn a_list_that_nothing_holds_is_named_with_the_end_that_is_exposed() {
    let nothing = PrefixControl::default();
    let announces = PrefixControl { announces: true, ..nothing };
    let mut wanted = intent(&["10.0.0.0/16"], &["10.1.0.0/16"]);
    assert_eq!(told(&wanted, announces, announces), []);
    let elsewhere = || (Severity::Info, "announced-elsewhere /b/advertisedPrefixes".to_owned());
    assert_eq!(told(&wanted, announces, nothing), [elsewhere()], "nothing was asked that is not held");

    wanted.a.accepted_prefixes = Some(nets(&["10.1.0.0/24"]));
    wanted.routing.max_prefixes = Some(5);
    assert_eq!(told(&wanted, announces, announces), [], "the other end announces no more than is accepted");
    let warned = |pointer: &str| (Severity::Warning, format!("not-enforced {pointer}"));
    let both = [warned("/a/acceptedPrefixes"), warned("/routing/maxPrefixes"), elsewhere()];
    assert_eq!(told(&wanted, announces, nothing), both);
    let filters = PrefixControl { accepts: true, limits: true, ..announces };
    assert_eq!(told(&wanted, filters, nothing), [elsewhere()]);
}
