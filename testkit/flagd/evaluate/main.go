// Command flagd-evaluate answers with flagd's own evaluator what callers in process would be told of a file of flags, as it stands at
// the moment:
//
//	curl 'http://127.0.0.1:PORT/choose?flag=support-agent-version&key=conversation-7&key=conversation-8'
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"sync"

	"github.com/open-feature/flagd/core/pkg/evaluator"
	"github.com/open-feature/flagd/core/pkg/logger"
	"github.com/open-feature/flagd/core/pkg/store"
	flagsync "github.com/open-feature/flagd/core/pkg/sync"
	"go.uber.org/zap"
)

func main() {
	listen, path := flag.String("listen", "", "host:port"), flag.String("flags", "", "file of flags")
	flag.Parse()
	var one sync.Mutex // a new evaluator registers its operators with all others
	http.HandleFunc("GET /choose", func(w http.ResponseWriter, req *http.Request) {
		one.Lock()
		defer one.Unlock()
		chosen, err := choose(req, *path)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(chosen) // whoever asked is gone
	})
	err := http.ListenAndServe(*listen, nil) //nolint:gosec // for tests, on this machine
	fmt.Fprintln(os.Stderr, "flagd-evaluate:", err)
	os.Exit(1)
}

// choose is what the flag says for each of the keys.
func choose(req *http.Request, path string) ([]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	e := evaluator.NewJSON(logger.NewLogger(zap.NewNop(), false), store.NewFlags())
	if _, _, err := e.SetState(flagsync.DataSync{FlagData: string(data), Source: path}); err != nil {
		return nil, err
	}
	chosen := []string{}
	for _, key := range req.URL.Query()["key"] {
		version, _, _, _, err := e.ResolveStringValue(req.Context(), "", req.FormValue("flag"), map[string]any{"targetingKey": key})
		if err != nil {
			return nil, err
		}
		chosen = append(chosen, version)
	}
	return chosen, nil
}
