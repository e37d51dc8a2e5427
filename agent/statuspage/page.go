package statuspage

import (
	_ "embed"
	"net/http"
)

//go:embed page.html
var page []byte

func (s *Server) page(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(page)
}
