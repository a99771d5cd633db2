class SGD(object):
    param_names = (("W", "dLdW"), ("b", "dLdb"))

    def __init__(self, model, learning_rate=0.01):
        self.model = model
        self.learning_rate = learning_rate

    def step(self):
        for layer in self.model.layers:
            for p, g in self.param_names:
                theta = getattr(layer, p)
                theta -= self.learning_rate * getattr(layer, g)   # in place
