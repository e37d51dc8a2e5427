package statuspage

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// policy lets the page load from itself alone, and lets no script turn text
// into markup.
const policy = "default-src 'none'; img-src 'self' blob:; style-src 'self'; script-src 'self'; connect-src 'self'; " +
	"frame-ancestors 'none'; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// guard keeps other web pages out. The Host check stops a page that made its
// own name point here (DNS rebinding): names are refused, addresses and
// localhost are served. The fetch metadata and the resource policy stop a page
// that shows or measures ours from its own origin.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		switch {
		case !localHost(r.Host):
			http.Error(w, "statuspage: open this page by its address, or as localhost", http.StatusMisdirectedRequest)
		case foreign(r.Header):
			http.Error(w, "statuspage: not for other web pages", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// localHost tells whether a Host header is an address or localhost, with or
// without a port.
func localHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	} else if h, ok := strings.CutPrefix(host, "["); ok {
		host = strings.TrimSuffix(h, "]")
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	_, err := netip.ParseAddr(host)
	return err == nil
}

// foreign tells whether a browser says that another site's page asks. Opening
// the page by a link is no reading.
func foreign(h http.Header) bool {
	site := h.Get("Sec-Fetch-Site")
	return (site == "cross-site" || site == "same-site") && h.Get("Sec-Fetch-Mode") != "navigate"
}
