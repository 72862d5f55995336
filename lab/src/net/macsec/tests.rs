//! What both ends make of their keys, without any device.

use super::*;

fn key(n: u8) -> MacSecKey {
    MacSecKey { ckn: name(n), cak: Sensitive::new(format!("{n:064x}")) }
}

fn name(n: u8) -> Sensitive {
    Sensitive::new(format!("{n:08x}"))
}

/// Both ends of one trunk.
#[derive(Default)]
struct Trunk(Trunks);

impl Trunk {
    fn told(&mut self, end: End, keys: &[u8], active: Option<u8>) -> [bool; 2] {
        let wanted = MacSecWanted { keys: keys.iter().copied().map(key).collect(), active: active.map(name) };
        self.0.put(3, end, &wanted).unwrap().1
    }

    fn uses(&self, end: End) -> Option<Sensitive> {
        self.0.held(3, end).active
    }
}

#[test]
fn a_change_of_key_that_is_made_in_order_cuts_nothing() {
    let mut trunk = Trunk::default();
    assert_eq!(trunk.told(End::A, &[1], Some(1)), [false; 2], "the other end has no key yet");
    assert_eq!(trunk.uses(End::A), None);
    assert_eq!(trunk.told(End::B, &[1], Some(1)), [true; 2]);
    // Whichever end is told first: the one before stays in use until the other end has the new one.
    assert_eq!(trunk.told(End::A, &[1, 2], Some(2)), [true; 2]);
    assert_eq!([trunk.uses(End::A), trunk.uses(End::B)], [Some(name(1)), Some(name(1))]);
    assert_eq!(trunk.told(End::B, &[1, 2], Some(2)), [true; 2]);
    assert_eq!([trunk.uses(End::A), trunk.uses(End::B)], [Some(name(2)), Some(name(2))]);
    assert_eq!(trunk.told(End::B, &[2], Some(2)), [true; 2]);
    assert_eq!(trunk.told(End::A, &[2], Some(2)), [true; 2]);
    assert_eq!(trunk.0.run(End::A).collect::<Vec<_>>(), [(3, 2)], "two changes");
    assert_eq!(trunk.0.held(3, End::A), MacSecHeld { installed: vec![name(2)], active: Some(name(2)) });
}

#[test]
fn what_the_other_end_cannot_read_does_not_arrive_and_nothing_goes_in_clear() {
    let mut trunk = Trunk::default();
    assert_eq!(trunk.told(End::A, &[1], Some(1)), [false; 2], "the other end runs no MACsec");
    // One name, two secrets.
    let other = MacSecKey { ckn: name(1), cak: key(9).cak };
    let wanted = MacSecWanted { keys: vec![other], active: Some(name(1)) };
    assert_eq!(trunk.0.put(3, End::B, &wanted).unwrap().1, [false; 2]);
    assert_eq!(trunk.told(End::B, &[1], Some(1)), [true; 2]);
    // The old one is taken away before the new one is there: a cut, which the order above avoids.
    assert_eq!(trunk.told(End::B, &[2], Some(2)), [false; 2]);
    assert_eq!(trunk.told(End::B, &[1], None), [false; 2], "it is to use none");
    assert_eq!(agree([None, None]), [true; 2]);
}

#[test]
fn malformed_keys_are_not_taken() {
    let take = |keys: Vec<MacSecKey>| {
        let mut trunks = Trunks::default();
        let taken = trunks.put(0, End::A, &MacSecWanted { keys, active: None });
        taken.map(|(held, _)| held.installed.len())
    };
    let with = |ckn: &str, cak: &str| vec![MacSecKey { ckn: Sensitive::new(ckn), cak: Sensitive::new(cak) }];
    let good = "0".repeat(64);
    assert_eq!(take(with("00", &good)), Ok(1));
    for name in ["", "0", "000", "zz", &"00".repeat(33)] {
        assert_eq!(take(with(name, &good)), Err(MacSecError::Name), "{name}");
    }
    for secret in ["", &good[1..], &good.replace('0', "x")] {
        assert_eq!(take(with("00", secret)), Err(MacSecError::Secret), "{secret}");
    }
    assert_eq!(take(vec![key(1), key(1)]), Err(MacSecError::Twice));
    assert_eq!(take((0..17).map(key).collect()), Err(MacSecError::TooMany));
    assert!(!format!("{:?}", key(7)).contains("07"));
}
