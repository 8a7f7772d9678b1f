"""Recording a network while any loop trains it: users call `recorder`, and the other modules are its parts."""
