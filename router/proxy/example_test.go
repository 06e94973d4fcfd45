package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"github.com/aviary-rollouts/aviary/router"
	"github.com/aviary-rollouts/aviary/router/api"
	"github.com/aviary-rollouts/aviary/router/proxy"
)

// The proxy is a handler like any other: here in a server of the caller's own.
func ExampleNew() {
	agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.WriteString(w, "served "+req.URL.Path)
	}))
	defer agent.Close()
	r, err := router.New(router.Options{Agents: map[string]router.AgentOptions{
		"support-agent": {Stable: "v41", Versions: map[string]api.Version{"v41": {URL: agent.URL}}},
	}})
	if err != nil {
		panic(err)
	}
	p, err := proxy.New(r, proxy.Options{})
	if err != nil {
		panic(err)
	}
	defer p.Close()
	front := httptest.NewServer(p)
	defer front.Close()

	resp, err := http.Get(front.URL + "/agents/support-agent/chat")
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		panic(err)
	}
	fmt.Println(resp.Header.Get("X-Agent-Version"), string(body))
	// Output: v41 served /chat
}
