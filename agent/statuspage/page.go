package statuspage

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"net/http"
)

//go:embed web
var web embed.FS

// assets are the files beside the page, by path.
func assets() []struct{ path, file, kind string } {
	return []struct{ path, file, kind string }{
		{"/style.css", "web/style.css", "text/css; charset=utf-8"},
		{"/app.js", "web/app.js", "text/javascript; charset=utf-8"},
		{"/icon.svg", "web/icon.svg", "image/svg+xml"},
	}
}

// parsePage reads the page's template with the words of l.
func parsePage(l language) (*template.Template, error) {
	t, err := template.New("page.html").Funcs(template.FuncMap{"t": l.t, "blank": blank}).ParseFS(web, "web/page.html")
	if err != nil {
		return nil, fmt.Errorf("statuspage: page: %w", err)
	}
	return t, nil
}

// blank is an item without content, for the templates the script clones.
func blank(kind string) (any, error) {
	switch kind {
	case "line":
		return line{}, nil
	case "fact":
		return fact{}, nil
	case "score":
		return scoreWords{}, nil
	case "camera":
		return cameraWords{}, nil
	case "step":
		return stepWords{}, nil
	case "entry":
		return historyWords{}, nil
	}
	return nil, fmt.Errorf("no item %q", kind)
}

func (s *Server) servePage(w http.ResponseWriter, r *http.Request) {
	var b bytes.Buffer
	if err := s.page.Execute(&b, s.words(r)); err != nil {
		s.cfg.Logger.Error("status page", "error", err)
		http.Error(w, "statuspage: the page could not be made", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(b.Bytes())
}

func (s *Server) serveAsset(file, kind string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		b, err := web.ReadFile(file)
		if err != nil {
			panic("internal error: statuspage: " + err.Error()) // embedded
		}
		w.Header().Set("Content-Type", kind)
		_, _ = w.Write(b)
	}
}

// words is the present moment as the page says it.
func (s *Server) words(r *http.Request) words {
	history := defaultHistory
	if r.URL.Query().Get("history") == "all" {
		history = -1
	}
	return s.text.describe(s.moment(), s.exposed, history)
}
