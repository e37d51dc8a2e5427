package statuspage

import (
	"net"
	"net/url"
	"strings"
	"testing"
)

// FuzzHost: no Host header passes that a browser would have to look up.
func FuzzHost(f *testing.F) {
	for _, seed := range []string{"127.0.0.1:8080", "localhost", "[::1]:80", "[fe80::1%eth0]", "evil.example:80", "127.0.0.1.evil.example", "[::1].evil.example", "[localhost]:80", "::1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, host string) {
		if !localHost(host) {
			return
		}
		u, err := url.Parse("http://" + host + "/")
		if err != nil {
			return // no browser gets here with it
		}
		name, _, _ := strings.Cut(u.Hostname(), "%")
		if !strings.EqualFold(name, "localhost") && net.ParseIP(name) == nil && !strings.Contains(host, "::") {
			t.Errorf("%q passes as %q", host, name)
		}
	})
}
