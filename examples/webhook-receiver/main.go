// Command webhook-receiver is a sample data plane behind Aviary's webhook driver:
//
//	AVIARY_ROUTE_SECRET=… go run ./examples/webhook-receiver --agent support-agent=v41,v42
//	curl 'http://127.0.0.1:9910/choose?agent=support-agent&key=conversation-7'
package main

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/aviary-rollouts/aviary/examples/webhook-receiver/receiver"
)

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := run(log); err != nil {
		log.Error("webhook-receiver", "error", err)
		os.Exit(1)
	}
}

func run(log *slog.Logger) error {
	address := flag.String("listen", "127.0.0.1:9910", "host:port; port 0: any free one")
	agents := map[string][]string{}
	flag.Func("agent", "`name=version,version…`, the first is stable; may be given again", func(s string) error {
		name, versions, ok := strings.Cut(s, "=")
		if !ok || name == "" || versions == "" {
			return errors.New("want name=version,version")
		}
		agents[name] = strings.Split(versions, ",")
		return nil
	})
	flag.Parse()
	secret := os.Getenv("AVIARY_ROUTE_SECRET")
	if secret == "" || len(agents) == 0 {
		return errors.New("want the secret in AVIARY_ROUTE_SECRET, and --agent name=v41,v42")
	}
	r := receiver.New([]byte(secret), agents, log)
	mux := http.NewServeMux()
	mux.Handle("/v1/", r)
	mux.HandleFunc("GET /choose", func(w http.ResponseWriter, req *http.Request) {
		version := r.Choose(req.FormValue("agent"), req.FormValue("key"))
		if version == "" {
			http.Error(w, "no such agent", http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = fmt.Fprintln(w, version) //nolint:gosec // one of the versions that were named at the start
	})
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		return err
	}
	log.Info("listening", "address", listener.Addr().String())
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	return server.Serve(listener)
}
