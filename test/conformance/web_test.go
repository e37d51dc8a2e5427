package main

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// webScenarios are our own, of what HTTP and a disk can do.
func webScenarios() []scenario {
	answer := func(s *story, file string, do func(w http.ResponseWriter)) {
		s.answer = func(w http.ResponseWriter, path string) bool {
			if !strings.HasSuffix(path, file) {
				return false
			}
			do(w)
			return true
		}
	}
	return []scenario{
		{"own: root is forbidden instead of not found", "a bucket that lists nothing says 403 for the next root: 0", func(s *story) {
			answer(s, "2.root.json", func(w http.ResponseWriter) { w.WriteHeader(http.StatusForbidden) })
			s.init()
			s.refresh(0)
		}},
		{"own: root cannot be served", "a failing server says 500 for the next root, which is no end of the chain: 1", func(s *story) {
			answer(s, "2.root.json", func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) })
			s.init()
			s.refresh(1)
			s.trusts(1, 0, 0, 0)
		}},
		{"own: endless timestamp", "a timestamp has no end: 1", func(s *story) {
			endless := 0
			answer(s, "timestamp.json", func(w http.ResponseWriter) {
				for b := bytes.Repeat([]byte(" "), 4096); endless < 64<<20; endless += len(b) {
					if _, err := w.Write(b); err != nil {
						return
					}
				}
			})
			s.init()
			s.refresh(1)
			s.mu.Lock() // until the server has noticed
			defer s.mu.Unlock()
			if endless >= 64<<20 {
				s.t.Error("64 MiB of a timestamp were read")
			}
		}},
		{"own: timestamp is cut short", "the connection ends within the timestamp: 1", func(s *story) {
			answer(s, "timestamp.json", func(w http.ResponseWriter) {
				w.Header().Set("Content-Length", "900")
				_, _ = w.Write([]byte(`{"signed":`))
			})
			s.init()
			s.refresh(1)
			s.trusts(1, 0, 0, 0)
		}},
		{"own: longer than listed", "targets are longer than the snapshot says: 1", func(s *story) {
			s.hashes = true
			s.publish("targets", "snapshot", "timestamp")
			s.signed["targets"][1] = append(s.signed["targets"][1], ' ')
			s.init()
			s.refresh(1)
			s.trusts(1, 2, 2, 0)
		}},
		{"own: stored metadata is damaged", "every stored file but the root is cut short and comes again: 0", func(s *story) {
			s.init()
			s.refresh(0)
			for _, role := range []string{"timestamp", "snapshot", "targets"} {
				s.must(os.Truncate(filepath.Join(s.dir, "metadata", role+".json"), 100))
			}
			s.refresh(0)
			s.trusts(1, 1, 1, 1)
		}},
		{"own: stored metadata is lost and old comes back", "all but root and floor are lost, then older versions are served: 1", func(s *story) {
			s.init()
			old := s.signed["timestamp"]
			s.publish("targets", "snapshot", "timestamp")
			s.refresh(0)
			for _, role := range []string{"timestamp", "snapshot", "targets"} {
				s.must(os.Remove(filepath.Join(s.dir, "metadata", role+".json")))
			}
			s.signed["timestamp"] = old[:1]
			s.refresh(1)
			s.trusts(1, 0, 0, 0)
		}},
		{"own: a delegated role called snapshot", "targets delegates to a name that another role has: 1", func(s *story) {
			s.init()
			s.delegate("targets", "snapshot", false, "*")
			s.publish("targets", "snapshot", "timestamp")
			s.download(1, "anything")
		}},
		{"own: no consistent snapshot", "the repository has its files without versions in the names: 0", func(s *story) {
			s.get("root")["consistent_snapshot"] = false
			s.publish("root")
			s.answer = func(w http.ResponseWriter, path string) bool {
				name := strings.TrimPrefix(path, "/metadata/")
				role, ok := strings.CutSuffix(name, ".json")
				if !ok || strings.Contains(role, ".") || s.signed[role] == nil {
					return false
				}
				_, _ = w.Write(s.latest(role))
				return true
			}
			s.init()
			s.refresh(0)
			s.trusts(2, 1, 1, 1)
		}},
	}
}
