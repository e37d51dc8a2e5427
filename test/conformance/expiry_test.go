package main

func expiryScenarios() []scenario {
	past := func(s *story, role string) { expire(s.get(role), s.now.Add(-5*day)) }
	return []scenario{
		{"test_root_expired", "the new root is past its expiry, it counts but nothing below it: 1", func(s *story) {
			s.init()
			s.refresh(0)
			s.publish("root")
			s.refresh(0)
			past(s, "root")
			s.publish(top...)
			s.refresh(1)
			s.trusts(3, 1, 1, 1)
		}},
		{"test_timestamp_expired", "the new timestamp is past its expiry: 1", func(s *story) {
			s.init()
			s.refresh(0)
			past(s, "timestamp")
			s.publish("timestamp")
			s.refresh(1)
			s.trusts(1, 1, 1, 1)
		}},
		{"test_snapshot_expired", "the new snapshot is past its expiry: 1", func(s *story) {
			s.init()
			s.refresh(0)
			past(s, "snapshot")
			s.publish("snapshot", "timestamp")
			s.refresh(1)
			s.trusts(1, 2, 1, 1)
		}},
		{"test_targets_expired", "the new targets are past their expiry: 1", func(s *story) {
			s.init()
			s.refresh(0)
			past(s, "targets")
			s.publish("targets", "snapshot", "timestamp")
			s.refresh(1)
			s.trusts(1, 2, 2, 1)
		}},
		{"test_expired_local_root", "the stored root expired, a newer one did not: 0", func(s *story) {
			s.init()
			expire(s.get("root"), s.now.Add(7*day))
			s.publish("root")
			s.refresh(0)
			expire(s.get("root"), s.now.Add(21*day))
			s.publish("root")
			s.now = s.now.Add(18 * day)
			s.refresh(0)
			s.trusts(3, 1, 1, 1)
		}},
		{"test_expired_local_timestamp", "the stored timestamp expired, a newer one did not: 0", func(s *story) {
			s.init()
			expire(s.get("timestamp"), s.now.Add(7*day))
			s.publish("timestamp")
			s.refresh(0)
			expire(s.get("timestamp"), s.now.Add(21*day))
			s.publish("targets", "snapshot", "timestamp")
			s.now = s.now.Add(18 * day)
			s.refresh(0)
			s.trusts(1, 3, 2, 2)
		}},
	}
}
