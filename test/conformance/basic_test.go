package main

import (
	"bytes"
	"os"
	"path/filepath"
	"time"
)

// top are the roles that a publication of everything signs anew.
var top = []string{"root", "targets", "snapshot", "timestamp"}

func basicScenarios() []scenario {
	all := []scenario{
		{"test_basic_refresh_requests", "a refresh asks for each role once: 0", func(s *story) {
			s.init()
			s.refresh(0)
			s.requests("root 2", "timestamp", "snapshot 1", "targets 1")
		}},
		{"test_basic_refresh_trusted_data", "a refresh trusts what was published: 0", func(s *story) {
			s.init()
			s.refresh(0)
			for _, role := range top {
				s.stores(role, s.latest(role))
			}
		}},
		{"test_implicit_refresh", "a download of a target that nobody signed refreshes first: 1", func(s *story) {
			s.init()
			s.download(1, "nonexistent artifact")
			s.requests("root 2", "timestamp", "snapshot 1", "targets 1")
			s.trusts(1, 1, 1, 1)
		}},
		{"test_invalid_initial_root", "the first root has no version, nothing is asked for: 1", func(s *story) {
			s.root = bytes.Replace(s.root, []byte(`"version":1`), []byte(`"varsion":1`), 1)
			s.init()
			s.refresh(1)
			s.requests()
		}},
		{"test_unsigned_initial_root", "the first root is signed by nobody, nothing is asked for: 1", func(s *story) {
			s.signers["root"] = nil
			s.root = s.sign("root")
			s.init()
			s.refresh(1)
			s.requests()
		}},
		{"test_timestamp_content_changes", "a timestamp changes but not its version, the first stays trusted: 0", func(s *story) {
			s.init()
			s.refresh(0)
			before := s.latest("timestamp")
			s.get("timestamp")["meta"].(obj)["snapshot.json"] = obj{"version": 100}
			s.signed["timestamp"] = nil
			s.publish("timestamp")
			s.asked = nil
			s.refresh(0)
			s.requests("root 2", "timestamp")
			s.stores("timestamp", before)
		}},
		{"test_basic_metadata_hash_support", "metadata is listed with length and digest: 0", func(s *story) {
			s.hashes = true
			s.publish("targets", "snapshot", "timestamp")
			s.init()
			s.refresh(0)
			s.trusts(1, 2, 2, 2)
		}},
		{"test_targets_hash_mismatch", "targets differs from the digest in the snapshot: 1", func(s *story) {
			s.hashes = true
			s.publish("targets", "snapshot", "timestamp")
			s.init()
			s.refresh(0)
			s.publish("targets")
			s.get("snapshot")["meta"].(obj)["targets.json"].(obj)["hashes"] = obj{"sha256": zeros}
			s.publish("snapshot", "timestamp")
			s.refresh(1)
			s.trusts(1, 3, 3, 2)
		}},
		{"test_snapshot_hash_mismatch", "the snapshot differs from the digest in the timestamp: 1", func(s *story) {
			s.hashes = true
			s.publish("snapshot", "timestamp")
			s.init()
			s.refresh(0)
			s.publish("snapshot")
			s.get("timestamp")["meta"].(obj)["snapshot.json"].(obj)["hashes"] = obj{"sha256": zeros}
			s.publish("timestamp")
			s.refresh(1)
			s.trusts(1, 3, 2, 1)
		}},
		{"test_metadata_bytes_match", "what is stored is what was sent, to the byte: 0", func(s *story) {
			s.signed["timestamp"][0] = append(s.signed["timestamp"][0], ' ')
			s.init()
			s.refresh(0)
			s.stores("timestamp", s.latest("timestamp"))
		}},
		{"test_custom_fields", "root has fields that nobody defined: 0", func(s *story) {
			s.init()
			s.refresh(0)
			k := s.newSigner("ecdsa")
			k.public["extra-field"] = obj{"a": 1, "b": 2}
			s.addKey("root", "root", k.named(s.t))
			s.get("root")["custom-field"] = "value"
			entry, _ := s.roleOf("root", "root")
			entry["another-field"] = "value"
			s.publish("root")
			s.refresh(0)
			s.trusts(2, 1, 1, 1)
		}},
		{"test_deprecated_keyid_hash_algorithms", "a key has a field of an older specification: 0", func(s *story) {
			s.init()
			k := s.newSigner("ecdsa")
			k.public["keyid_hash_algorithms"] = "md5"
			k.named(s.t)
			s.keysOf("snapshot", 1, []*signer{k}, []*signer{k})
			s.publish("root", "snapshot", "timestamp")
			s.refresh(0)
			s.trusts(2, 2, 2, 1)
		}},
		{"test_snapshot_404", "the snapshot listed is not there: 1", func(s *story) {
			s.init()
			s.refresh(0)
			s.get("timestamp")["meta"].(obj)["snapshot.json"] = obj{"version": 2}
			s.publish("timestamp")
			s.asked = nil
			s.refresh(1)
			s.requests("root 2", "timestamp", "snapshot 2")
			s.trusts(1, 2, 1, 1)
		}},
		{"test_targets_404", "the targets listed are not there: 1", func(s *story) {
			s.init()
			s.refresh(0)
			s.get("snapshot")["meta"].(obj)["targets.json"] = obj{"version": 2}
			s.publish("snapshot", "timestamp")
			s.asked = nil
			s.refresh(1)
			s.requests("root 2", "timestamp", "snapshot 2", "targets 2")
			s.trusts(1, 2, 2, 1)
		}},
		{"test_timestamp_404", "there is no timestamp: 1", func(s *story) {
			s.init()
			s.refresh(0)
			s.signed["timestamp"] = nil
			s.asked = nil
			s.refresh(1)
			s.requests("root 2", "timestamp")
		}},
		{"test_incorrect_metadata_type", "a snapshot that the timestamp key signed stands for the timestamp: 1", func(s *story) {
			s.init()
			s.addKey("root", "snapshot", s.signers["timestamp"][0])
			s.get("snapshot")["meta"] = obj{"snapshot.json": obj{"version": 1}}
			s.publish("root", "snapshot")
			s.signed["timestamp"] = append(s.signed["timestamp"], s.latest("snapshot"))
			s.refresh(1)
			s.trusts(2, 0, 0, 0)
		}},
		{"test_faketime", "the root expires with time: 0, then 1", func(s *story) {
			s.init()
			expire(s.get("root"), s.now.Add(7*day))
			s.publish("root")
			s.refresh(0)
			s.now = s.now.Add(8 * day)
			s.refresh(1)
		}},
	}
	return append(append(all, unsignedScenarios()...), mismatchScenarios()...)
}

const zeros = "0000000000000000000000000000000000000000000000000000000000000000"

const day = 24 * time.Hour

// stores demands the bytes on disk.
func (s *story) stores(role string, want []byte) {
	s.t.Helper()
	got, err := os.ReadFile(filepath.Join(s.dir, "metadata", role+".json"))
	s.must(err)
	if !bytes.Equal(got, want) {
		s.t.Fatalf("%s stored as\n%s\nexpected\n%s", role, got, want)
	}
}

func unsignedScenarios() (all []scenario) {
	for role, trusts := range map[string][4]int{"root": {1}, "timestamp": {2}, "snapshot": {2, 2}, "targets": {2, 2, 2}} {
		all = append(all, scenario{"test_unsigned_metadata[" + role + "]", role + " is not signed, what stands above it counts: 1", func(s *story) {
			s.signers[role] = nil
			s.publish(top...)
			s.init()
			s.refresh(1)
			s.trusts(trusts[0], trusts[1], trusts[2], trusts[3])
		}})
	}
	return all
}

func mismatchScenarios() (all []scenario) {
	for role, trusts := range map[string][4]int{"root": {1}, "snapshot": {2, 2}, "targets": {2, 2, 2}} {
		all = append(all, scenario{"test_url_and_metadata_version_mismatch[" + role + "]", role + " is served as version 2 and says it is 3: 1", func(s *story) {
			s.get(role)["version"] = 2
			listed := func(by string) {
				s.get(by)["meta"].(obj)[role+".json"] = obj{"version": 2}
			}
			s.publish("root", "targets")
			if role == "targets" {
				listed("snapshot")
			}
			s.publish("snapshot")
			if role == "snapshot" {
				listed("timestamp")
			}
			s.publish("timestamp")
			s.init()
			s.refresh(1)
			s.trusts(trusts[0], trusts[1], trusts[2], trusts[3])
		}})
	}
	return all
}
