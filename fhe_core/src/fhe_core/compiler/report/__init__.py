"""The report of a compiled model: what each layer does, costs and adds in error, and why.

`layers` divides a program, `measuring` finds the errors and `decisions` the reasons; `collecting` puts them
together as plain data, which is saved with the model. `reading` gets it back from a folder, without the packs,
the ONNX file or the compiler, and `page` makes a web page of it.
"""
