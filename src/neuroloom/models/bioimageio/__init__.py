"""Exchange of models with bioimage.io: one zip file that other programs run, and that holds our checkpoint too.

fused       both networks as one TorchScript module       package     writing the zip file       reading     back again
"""
