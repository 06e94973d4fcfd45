package admin

import (
	"net/http"
	"strings"

	"github.com/aviary-rollouts/aviary/router/api"
)

// jsonErrors makes the mux's own refusals (no such path, wrong method) JSON like all others.
func jsonErrors(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if _, pattern := mux.Handler(req); pattern != "" {
			mux.ServeHTTP(w, req)
			return
		}
		plain := &recorder{header: http.Header{}}
		mux.ServeHTTP(plain, req)
		if plain.status == http.StatusMethodNotAllowed {
			allow := plain.header.Get("Allow")
			w.Header().Set("Allow", allow)
			answer(w, http.StatusMethodNotAllowed, api.ErrorBody{Code: api.CodeMethodNotAllowed,
				Error: "method " + req.Method + " is not allowed here: want " + strings.ReplaceAll(allow, ", ", " or ")})
			return
		}
		answer(w, http.StatusNotFound, api.ErrorBody{Code: api.CodeNotFound, Error: "there is nothing at this path"})
	})
}

// recorder takes an answer that nobody sees.
type recorder struct {
	header http.Header
	status int
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) Write(b []byte) (int, error) { return len(b), nil }
func (r *recorder) WriteHeader(status int)      { r.status = status }
