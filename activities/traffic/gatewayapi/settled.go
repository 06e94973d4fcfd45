package gatewayapi

import (
	"cmp"
	"errors"
	"fmt"
)

// parent is what a route is attached to.
type parent struct {
	group, kind, namespace, name, section string
	port                                  int64
}

func parentOf(ref map[string]any, namespace string) parent {
	text := func(key, other string) string {
		s, ok := ref[key].(string)
		if !ok {
			return other
		}
		return s
	}
	port, _ := ref["port"].(int64)
	return parent{
		text("group", group), text("kind", "Gateway"), cmp.Or(text("namespace", ""), namespace), text("name", ""), text("sectionName", ""), port,
	}
}

func (p parent) String() string { return p.kind + " " + p.namespace + "/" + p.name }

// settled is why a route as it stands is not in force at some of its parents, or nil: each of them has to have accepted it and
// to have found its Services, and this very generation of it.
func settled(route map[string]any) error {
	metadata, _ := route["metadata"].(map[string]any)
	namespace, _ := metadata["namespace"].(string)
	generation, _ := metadata["generation"].(int64)
	spec, _ := route["spec"].(map[string]any)
	said, _ := route["status"].(map[string]any)
	refs, _ := spec["parentRefs"].([]any)
	statuses, _ := said["parents"].([]any)
	for _, r := range refs {
		ref, _ := r.(map[string]any)
		want := parentOf(ref, namespace)
		err := fmt.Errorf("%s has not said anything about it", want)
		for _, s := range statuses {
			status, _ := s.(map[string]any)
			of, _ := status["parentRef"].(map[string]any)
			if of == nil || parentOf(of, namespace) != want {
				continue
			}
			if err = inForce(status, generation); err == nil {
				break // more than one controller may speak of a parent: one that serves it is enough
			}
			err = fmt.Errorf("%s: %w", want, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// inForce is which condition of a parent's status is not met for the generation, or nil.
func inForce(status map[string]any, generation int64) error {
	conditions, _ := status["conditions"].([]any)
	for _, wanted := range []string{"Accepted", "ResolvedRefs"} {
		err := errors.New("condition " + wanted + " is not there")
		for _, c := range conditions {
			condition, _ := c.(map[string]any)
			if condition["type"] != wanted {
				continue
			}
			seen, _ := condition["observedGeneration"].(int64)
			switch {
			case seen < generation:
				err = fmt.Errorf("condition %s is of generation %d, want %d", wanted, seen, generation)
			case condition["status"] != "True":
				err = fmt.Errorf("condition %s is %v: %v: %v", wanted, condition["status"], condition["reason"], condition["message"])
			default:
				err = nil
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}
