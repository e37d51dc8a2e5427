package main

import (
	"fmt"
	"slices"
	"strings"
)

func downloadScenarios() []scenario {
	below := []string{"targets", "snapshot", "timestamp"}
	all := []scenario{
		{"test_client_downloads_expected_file", "a signed target is downloaded, a refresh downloads none: 0", func(s *story) {
			s.init()
			s.addTarget("targets", "target_file.txt", "contents")
			s.publish(below...)
			s.refresh(0)
			s.has()
			s.download(0, "target_file.txt")
			s.has("contents")
		}},
		{"test_client_downloads_expected_file_in_sub_dir", "a signed target in a folder is downloaded: 0", func(s *story) {
			s.init()
			s.addTarget("targets", "path/to/a/target_file.txt", "contents")
			s.publish(below...)
			s.download(0, "path/to/a/target_file.txt")
			s.has("contents")
		}},
		{"test_repository_substitutes_target_file", "a target is exchanged for another file: 1", func(s *story) {
			s.init()
			s.addTarget("targets", "one", "contents")
			s.addTarget("targets", "two", "other contents")
			s.publish(below...)
			s.download(0, "one")
			s.files["one"], s.files["two"] = []byte("malicious data"), []byte("malicious data")
			s.download(0, "one") // it is there already
			s.has("contents")
			s.download(1, "two")
			s.has("contents")
		}},
		{"test_multiple_changes_to_target", "targets change, now and then behind the metadata: 0, and 1 for those", func(s *story) {
			s.init()
			s.addTarget("targets", "a", "contents")
			s.publish(below...)
			s.download(0, "a")
			have, before := []string{"contents"}, "contents"
			for i := range 11 {
				now, more := fmt.Sprint("modified ", i), fmt.Sprint("new ", i)
				s.addTarget("targets", "a", now)
				s.addTarget("targets", fmt.Sprint("new-", i), more)
				s.publish(below...)
				if i%5 > 0 {
					continue
				}
				s.download(0, "a")
				have[slices.Index(have, before)], before = now, now
				s.has(slices.Clone(have)...)
				s.download(0, fmt.Sprint("new-", i))
				have = append(have, more)
				s.files["a"] = []byte("malicious")
				s.publish(below...)
				s.download(0, "a")
				s.has(slices.Clone(have)...)
			}
		}},
		{"test_download_with_unknown_hash_algorithm", "a target has a hash of an unknown kind alone: 1", func(s *story) {
			s.addTarget("targets", "a", "contents", "unknown-hash")
			s.publish(below...)
			s.init()
			s.download(1, "a")
			s.has()
		}},
		{"test_artifact_cache", "the same target is asked for twice and fetched once: 0", func(s *story) {
			s.init()
			s.addTarget("targets", "a", "contents")
			s.publish(below...)
			s.download(0, "a")
			s.download(0, "a")
			if len(s.gets) != 1 {
				s.t.Errorf("targets fetched: %q, expected one", s.gets)
			}
		}},
	}
	for i, hashes := range [][]string{{"sha256"}, {"sha512"}, {"sha256", "sha512"}} {
		all = append(all, scenario{fmt.Sprintf("test_download_with_hash_algorithms[hashes%d]", i), "a target is signed with " + strings.Join(hashes, " and ") + ": 0", func(s *story) {
			s.addTarget("targets", "a", "contents", hashes...)
			s.publish(below...)
			s.init()
			s.download(0, "a")
			s.has("contents")
		}})
	}
	return all
}
