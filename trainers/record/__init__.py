"""Recording a network while it learns, from any loop: `recorder` is what a user calls, the rest are its parts."""
