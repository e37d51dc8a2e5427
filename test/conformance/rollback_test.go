package main

func rollbackScenarios() []scenario {
	all := []scenario{
		{"test_new_timestamp_version_rollback", "an older timestamp is served again: 1", func(s *story) {
			s.init()
			s.publish("timestamp")
			s.refresh(0)
			s.again("timestamp", 1)
			s.publish("timestamp")
			s.asked = nil
			s.refresh(1)
			s.requests("root 2", "timestamp")
			s.trusts(1, 2, 1, 1)
		}},
		{"test_targets_role_removal", "a role is no longer listed in the snapshot: 1", func(s *story) {
			s.init()
			s.delegate("targets", "delegated", false, "delegatedpath/*")
			s.publish("delegated", "targets", "snapshot", "timestamp")
			s.refresh(0)
			delete(s.get("snapshot")["meta"].(obj), "delegated.json")
			s.publish("snapshot", "timestamp")
			s.refresh(1)
			s.trusts(1, 3, 2, 2)
		}},
		{"test_targets_fast_forward_recovery", "the snapshot key is replaced, so targets may go back from 100 to 1 and a role may go: 0", func(s *story) {
			s.init()
			s.delegate("targets", "delegated", false, "delegatedpath/*")
			s.publish("delegated")
			s.forward("targets")
			s.publish("snapshot", "timestamp")
			s.refresh(0)
			s.trusts(1, 2, 2, 100)
			s.rotate("snapshot")
			s.again("targets", 1)
			delete(s.get("snapshot")["meta"].(obj), "delegated.json")
			s.publish(top...)
			s.refresh(0)
			s.trusts(2, 3, 3, 1)
		}},
		{"test_new_snapshot_fast_forward_recovery", "snapshot and timestamp keys are replaced, so the snapshot may go back from 100 to 1: 0", func(s *story) {
			s.init()
			s.forward("snapshot")
			s.publish("timestamp")
			s.refresh(0)
			s.trusts(1, 2, 100, 1)
			s.rotate("snapshot")
			s.rotate("timestamp")
			s.again("snapshot", 1)
			s.publish(top...)
			s.refresh(0)
			s.trusts(2, 3, 1, 2)
		}},
		{"test_new_timestamp_fast_forward_recovery", "the timestamp key is replaced, so the timestamp may go back from 100 to 1: 0", func(s *story) {
			s.init()
			s.forward("timestamp")
			s.refresh(0)
			s.trusts(1, 100, 1, 1)
			s.rotate("timestamp")
			s.again("timestamp", 1)
			s.publish("root", "timestamp")
			s.refresh(0)
			s.trusts(2, 1, 1, 1)
		}},
	}
	for _, hashes := range []bool{false, true} {
		id := map[bool]string{false: "[basic]", true: "[with hashes]"}[hashes]
		all = append(all, scenario{"test_snapshot_rollback" + id, "a new timestamp names an older snapshot: 1", func(s *story) {
			s.init()
			s.hashes = hashes
			s.publish("snapshot", "timestamp")
			s.refresh(0)
			s.again("snapshot", 1)
			s.publish("snapshot", "timestamp")
			s.asked = nil
			s.refresh(1)
			s.requests("root 2", "timestamp")
			s.trusts(1, 2, 2, 1)
		}}, scenario{"test_targets_rollback" + id, "a new snapshot names older targets: 1", func(s *story) {
			s.init()
			s.hashes = hashes
			s.publish("targets", "snapshot", "timestamp")
			s.refresh(0)
			s.again("targets", 1)
			s.publish("targets", "snapshot", "timestamp")
			s.refresh(1)
			s.trusts(1, 3, 2, 2)
		}})
	}
	return all
}

// forward publishes a role until it has version 100.
func (s *story) forward(role string) {
	for s.get(role)["version"] != 100 {
		s.publish(role)
	}
}
