//go:build k8s

package traffictest

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/rollout"
)

// inspected is a look before a rollout: without Services, with them, and without rights.
func inspected(t *testing.T, p kubePlane) {
	version := p.object(t).GetResourceVersion()
	look := func() []rollout.Remark { return p.leased.(traffic.Inspector).Inspect(t.Context(), p.route("", 0, 0)) }
	wantRemark(t, look(), rollout.RemarkOK, "may set")
	services := p.admin.Resource(schema.GroupVersionResource{Version: "v1", Resource: "services"}).Namespace(p.namespace)
	for _, name := range []string{"bot-a", "bot-b"} {
		wantRemark(t, look(), rollout.RemarkWarning, "there is no Service "+p.namespace+"/"+name)
		_, err := services.Create(t.Context(), &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "Service", "metadata": map[string]any{"name": name},
			"spec": map[string]any{"ports": []any{map[string]any{"port": int64(8080)}}},
		}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	if all := look(); len(all) != 1 || all[0].Level != rollout.RemarkOK {
		t.Errorf("remarks %+v, want nothing but that all is well", all)
	}
	if p.dialect.Parent != nil {
		p.mustEdit(t, "platform", p.dialect.Parent)
		version = p.object(t).GetResourceVersion()
		wantRemark(t, look(), rollout.RemarkWarning, "has not said anything about it")
	}
	user := "nobody-" + p.namespace
	p.proxy.user.Store(&user)
	resource := p.dialect.Resource.Resource + "." + p.dialect.Resource.Group
	wantRemark(t, look(), rollout.RemarkError, "may not patch "+resource+" bot in namespace "+p.namespace)
	wantRemark(t, look(), rollout.RemarkError, "may not create leases.coordination.k8s.io in namespace")
	wantRemark(t, look(), rollout.RemarkWarning, "may not list "+resource)
	if after := p.object(t).GetResourceVersion(); after != version {
		t.Error("a look changed the object")
	}
}

func wantRemark(t *testing.T, all []rollout.Remark, level rollout.RemarkLevel, part string) {
	t.Helper()
	for _, r := range all {
		if r.Level == level && strings.Contains(r.Text, part) {
			return
		}
	}
	t.Errorf("remarks %+v, want one of level %s with %q", all, level, part)
}
