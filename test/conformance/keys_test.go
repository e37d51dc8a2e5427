package main

import "strings"

func keyScenarios() []scenario {
	all := []scenario{
		{"test_snapshot_does_not_meet_threshold", "two of three keys that are needed sign the snapshot: 1", func(s *story) {
			k := []*signer{s.newSigner("ecdsa"), s.newSigner("ecdsa"), s.newSigner("ecdsa")}
			s.keysOf("snapshot", 3, k, k)
			s.publish(top...)
			s.init()
			s.refresh(0)
			s.signers["snapshot"] = k[:2]
			s.publish("targets", "snapshot", "timestamp")
			s.refresh(1)
			s.trusts(2, 3, 2, 2)
		}},
		{"test_snapshot_has_too_few_keys", "root asks for six signatures of five keys: 1", func(s *story) {
			s.init()
			for range 4 {
				s.addKey("root", "snapshot", s.newSigner("ecdsa"))
			}
			entry, _ := s.roleOf("root", "snapshot")
			entry["threshold"] = 6
			s.publish("root", "snapshot", "timestamp")
			s.refresh(1)
			s.trusts(2, 2, 0, 0)
		}},
		{"test_duplicate_keys", "one key stands nine times in a role and signs nine times: 1", func(s *story) {
			s.init()
			k := s.newSigner("ecdsa")
			for range 9 {
				s.addKey("root", "snapshot", k)
			}
			entry, _ := s.roleOf("root", "snapshot")
			entry["threshold"] = 6
			s.publish("root", "snapshot", "timestamp")
			s.refresh(1)
			if s.version("snapshot") != 0 {
				s.t.Error("snapshot is trusted")
			}
		}},
		{"test_duplicate_sig_keyids", "the snapshot is signed twice by the same key: 1", func(s *story) {
			s.init()
			s.editSignatures("snapshot", func(sigs []any) []any { return append(sigs, sigs[0]) })
			s.refresh(1)
			s.trusts(1, 1, 0, 0)
		}},
		{"test_invalid_sig_in_valid_metadata", "enough signatures hold, another does not or is empty: 0", func(s *story) {
			s.init()
			var old any
			s.editSignatures("timestamp", func(sigs []any) []any {
				old = sigs[0].(obj)["sig"]
				return sigs
			})
			s.addKey("root", "timestamp", s.newSigner("ecdsa"))
			s.publish("root", "timestamp")
			for _, sig := range []any{old, ""} {
				s.editSignatures("timestamp", func(sigs []any) []any {
					sigs[0].(obj)["sig"] = sig
					return sigs
				})
				s.refresh(0)
				s.publish("timestamp")
			}
			s.trusts(2, 3, 1, 1)
		}},
	}
	for _, k := range []struct{ kind, scheme string }{{"rsa", "rsassa-pss-sha256"}, {"ecdsa", "ecdsa-sha2-nistp256"}, {"ed25519", "ed25519"}} {
		all = append(all, scenario{"test_keytype_and_scheme[" + k.kind + "/" + k.scheme + "]", "root needs a key of this kind, then has a wrong signature of it: 0, then 1", func(s *story) {
			s.init()
			s.addKey("root", "root", s.newSigner(k.kind))
			entry, _ := s.roleOf("root", "root")
			entry["threshold"] = 2
			s.publish("root")
			s.refresh(0)
			s.trusts(2, 1, 1, 1)
			s.publish("root")
			s.editSignatures("root", func(sigs []any) []any {
				last := sigs[len(sigs)-1].(obj)
				sig := last["sig"].(string)
				last["sig"] = strings.Repeat("5a", 20) + sig[40:]
				return sigs
			})
			s.refresh(1)
			s.trusts(2, 1, 1, 1)
		}})
	}
	return all
}
